"""Chat templates are programs by the model's author; wherever we render one, it is in a sandbox."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_yoda.data import template
from mlx_yoda.data.chat import encode
from mlx_yoda.data.columns import Conversation
from mlx_yoda.errors import UserError
from mlx_yoda.generation import answer_all, prompt_tokens

PLANT = "{{ %s.mkdir('planted') }}"
HOSTILE = {
    "globals of a function": PLANT % "cycler.__init__.__globals__.os",
    "globals of our helper": PLANT % "raise_exception.__globals__.jinja2.os",
    "subclasses": "{{ ''.__class__.__mro__[1].__subclasses__()[0] }}",
    "attr filter": "{{ (messages | attr('__class__')).__mro__ }}",
    "format string": "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "import": "{% import 'os' as os %}{{ os.mkdir('planted') }}",
    "include": "{% include '/etc/passwd' %}",
    "builtins": "{{ __builtins__.open('planted', 'w') }}",
    "template object": PLANT % "self._TemplateReference__context.environment.__class__",
    "changing the data": "{{ messages.append({'role': 'user', 'content': 'x'}) }}",
    "changing a message": "{{ messages[0].update({'content': 'x'}) }}",
    "a long range": "{% for i in range(10 ** 9) %}x{% endfor %}",
    "no template at all": "{% for",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a wrong type": "{{ messages + 1 }}",
}
PATHS: dict[str, Callable[[Any], Any]] = {
    "training": lambda t: encode([chat()], t, train_on="completions", max_length=None),
    "training on all": lambda t: encode([chat()], t, train_on="all", max_length=None),
    "training, protected": lambda t: encode(
        [chat("<|end|>")], t, train_on="all", max_length=None
    ),
    "prompt": lambda t: prompt_tokens(TokenizerWrapper(t), asked("hi")),
    "prompt, protected": lambda t: prompt_tokens(TokenizerWrapper(t), asked("<|end|>")),
    "many prompts": lambda t: answer_all(
        None, TokenizerWrapper(t), [asked("hi")], max_tokens=1
    ),  # type: ignore[arg-type]
}  # fmt: skip


def asked(content: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content}]


def chat(content: str = "hi") -> Conversation:
    return Conversation(
        ({"role": "user", "content": content}, {"role": "assistant", "content": "ho"}),
        None,
        "x:1",
        1,
    )


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_template_is_refused_and_touches_nothing(
    make_tokenizer: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    attack: str,
    path: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    tokenizer = make_tokenizer(HOSTILE[attack])
    with pytest.raises(UserError) as error:
        PATHS[path](tokenizer)
    assert "chat template refuses" in str(error.value)
    assert len(str(error.value)) < 500
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", PATHS)
def test_an_endless_template_is_stopped(
    make_tokenizer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(template, "_SECONDS", 0.2)
    loops = "".join(f"{{% for {name} in range(99999) %}}" for name in "abcd")
    with pytest.raises(UserError, match=r"chat template refuses it \(it takes more than 0\.2 s\)"):
        PATHS[path](make_tokenizer(loops + "{% endfor %}" * 4))
