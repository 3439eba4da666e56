from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.tokenizer_utils import TokenizerWrapper

from mlx_yoda.data.columns import Conversation
from mlx_yoda.data.template import TemplatedChat
from mlx_yoda.data.turns import assistant_tokens
from mlx_yoda.errors import UserError

CHATML = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
MARKED = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' }}"
    "{% if m['role'] == 'assistant' %}{%- generation -%}{{ m['content'] + '<|end|>' }}"
    "{%- endgeneration -%}{% else %}{{ m['content'] + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
)
# As reasoning models do: what is before </think> is shown in the last turn only.
FORGETFUL = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' }}{{ m['content'] if loop.last else "
    "m['content'].split('</think>')[-1] }}{{ '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
COUNTING = "{{ messages | length }}" + CHATML
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}" + CHATML
)
DEAF = CHATML.replace("{{ '<|'", "{% if m['role'] != 'system' %}{{ '<|'").replace(
    "{% endfor", "{% endif %}{% endfor"
)

roles_of = {"s": "system", "u": "user", "a": "assistant"}
words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)


def chat(roles: str, contents: Sequence[str], context: int = 0) -> Conversation:
    messages = ({"role": roles_of[r], "content": c} for r, c in zip(roles, contents, strict=True))
    return Conversation(tuple(messages), None, "x:1", context)


def said(conversation: Conversation, tokenizer: Any) -> list[str]:
    """The runs of supervised tokens, decoded."""
    tokens, supervised = assistant_tokens(TemplatedChat(conversation, tokenizer))
    assert tokens.dtype == np.int32
    assert supervised.dtype == bool
    assert not supervised[0]
    edges = np.flatnonzero(np.diff(supervised)) + 1
    runs = zip(np.split(tokens, edges), np.split(supervised, edges), strict=True)
    return [tokenizer.decode(run) for run, taught in runs if taught[0]]


def refused(conversation: Conversation, tokenizer: Any) -> str:
    with pytest.raises(UserError) as error:
        assistant_tokens(TemplatedChat(conversation, tokenizer))
    return str(error.value)


def test_phi3_every_turn_with_its_end_and_the_final_eos(tokenizer: Any) -> None:
    found = said(chat("suaua", ["be terse", "hi", "ho", "he", "ha"]), tokenizer)
    assert found == ["ho<|end|>", "ha<|end|><|endoftext|>"]


def test_phi3_whole_sequence(tokenizer: Any) -> None:
    tokens, _ = assistant_tokens(TemplatedChat(chat("ua", ["hi", "ho"]), tokenizer))
    assert tokenizer.decode(tokens) == "<|user|>hi<|end|><|assistant|>ho<|end|><|endoftext|>"


def test_tokens_between_turns_that_are_not_swallowed(make_tokenizer: Callable[..., Any]) -> None:
    found = said(chat("uaua", ["hi", "ho", "he", "ha"]), make_tokenizer(rstrip=False))
    assert found == ["ho<|end|>\n", "ha<|end|>\n<|endoftext|>"]


def test_a_prompt_carries_no_loss_even_where_the_assistant_speaks(
    make_tokenizer: Callable[..., Any],
) -> None:
    few_shot = chat("uaua", ["hi", "ho", "he", "ha"], context=3)
    assert said(few_shot, make_tokenizer()) == ["ha<|end|><|endoftext|>"]
    assert said(few_shot, make_tokenizer(MARKED)) == ["ha<|end|>"]


def test_a_chat_that_ends_with_the_user(tokenizer: Any) -> None:
    assert said(chat("uau", ["hi", "ho", "he"]), tokenizer) == ["ho<|end|>"]
    assert said(chat("u", ["hi"]), tokenizer) == []


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_template_that_marks_the_turns_is_believed(
    make_tokenizer: Callable[..., Any], wrapped: bool
) -> None:
    tokenizer = make_tokenizer(MARKED)
    tokenizer = TokenizerWrapper(tokenizer) if wrapped else tokenizer
    found = said(chat("uaua", ["hi", "ho", "he", "ha"]), tokenizer)
    assert found == ["ho<|end|>", "ha<|end|>"]  # not the final eos, which is not marked


def test_the_first_token_is_no_target_even_if_it_is_marked(
    make_tokenizer: Callable[..., Any],
) -> None:
    template = "{% generation %}{{ messages[0]['content'] }}{% endgeneration %}"
    assert said(chat("a", ["ho"]), make_tokenizer(template)) == ["o"]


@given(contents=st.lists(words, min_size=1, max_size=3), system=st.booleans())
@pytest.mark.parametrize("template", [None, CHATML])
def test_any_words_are_found_and_nothing_else(
    make_tokenizer: Callable[..., Any], template: str | None, contents: list[str], system: bool
) -> None:
    plain = make_tokenizer(template, rstrip=False) if template else make_tokenizer(rstrip=False)
    asked = [text for content in contents for text in ("?", content)]
    roles = "s" * system + "ua" * len(contents)
    found = said(chat(roles, ["!"] * system + asked), plain)
    assert len(found) == len(contents)
    for run, content in zip(found, contents, strict=True):
        assert run.replace("<|endoftext|>", "") == f"{content}<|end|>\n"


def test_the_wrapper_of_mlx_lm_gives_the_same(tokenizer: Any) -> None:
    conversation = chat("suaua", ["be terse", "hi", "ho", "he", "ha"])
    direct, wrapped = (
        assistant_tokens(TemplatedChat(conversation, t))
        for t in (tokenizer, TokenizerWrapper(tokenizer))
    )
    for mine, other in zip(direct, wrapped, strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize(
    ("template", "conversation"),
    [
        (FORGETFUL, chat("uaua", ["hi", "why</think>ho", "he", "ha"])),
        (COUNTING, chat("ua", ["hi", "ho"])),
        (CHATML.replace("m['content']", "m['content'][:1]"), chat("ua", ["h", "ho"])),
    ],
)
def test_a_template_that_changes_its_mind_is_refused(
    make_tokenizer: Callable[..., Any], template: str, conversation: Conversation
) -> None:
    message = refused(conversation, make_tokenizer(template))
    assert message.startswith("x:1: the model's chat template renders a turn differently once")
    assert "set data.train_on to all" in message


def test_the_last_turn_of_such_a_template_is_found(make_tokenizer: Callable[..., Any]) -> None:
    one = chat("ua", ["hi", "why</think>ho"])
    assert said(one, make_tokenizer(FORGETFUL)) == ["why</think>ho<|end|>"]


@pytest.mark.parametrize(
    ("template", "reason"),
    [(NO_SYSTEM, "System role not supported"), (DEAF, "it leaves out what the system says")],
)
def test_a_template_without_a_system_role(
    make_tokenizer: Callable[..., Any], template: str, reason: str
) -> None:
    message = refused(chat("sua", ["be terse", "hi", "ho"]), make_tokenizer(template))
    assert message == (
        f"x:1: the model's chat template refuses it ({reason}); if it knows no system role, "
        "put the system's words into the user's first turn"
    )
    assert said(chat("ua", ["hi", "ho"]), make_tokenizer(template))


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_tokenizer_without_a_template(make_tokenizer: Callable[..., Any], wrapped: bool) -> None:
    tokenizer = make_tokenizer(None)
    message = refused(chat("ua", "ab"), TokenizerWrapper(tokenizer) if wrapped else tokenizer)
    assert message.startswith("x:1: the model's tokenizer has no chat template; take a model")


def test_a_template_that_fails(make_tokenizer: Callable[..., Any]) -> None:
    message = refused(chat("ua", ["hi", "ho"]), make_tokenizer("{{ messages[7]['content'] + 1 }}"))
    assert message.startswith("x:1: the model's chat template refuses it (")


def test_the_assistant_does_not_begin(make_tokenizer: Callable[..., Any]) -> None:
    message = refused(chat("aua", ["ho", "hi", "ho"]), make_tokenizer())
    assert message == "x:1: the assistant has the first turn; begin with the user's"
