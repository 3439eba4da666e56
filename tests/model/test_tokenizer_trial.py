"""What a stranger's template or tokenizer builds in memory is bounded before it is used."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from mlx_yoda.errors import UserError
from mlx_yoda.model import tokenizer_trial
from mlx_yoda.model.load import load
from mlx_yoda.model.tokenizer_trial import try_tokenizer

REPLACE = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 100}
LONG_TEMPLATES = {
    "a product": "{{ 'a' * 10 ** 10 }}",
    "a filter": "{{ 'a' | center(10 ** 10) }}",
    "a method": "{{ 'a'.ljust(10 ** 10) }}",
    "doubling": "{% set n = namespace(s='ab') %}{% for i in range(40) %}"
    "{% set n.s = n.s ~ n.s %}{% endfor %}",
    "an answer only": "{% if messages | length > 1 %}{{ 'a' * 10 ** 10 }}{% endif %}",
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tokenizer_trial, "_MEMORY", 512 << 20)
    monkeypatch.setenv("MLX_YODA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(base_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base_folder, tmp_path / "model"))


@pytest.mark.parametrize("template", LONG_TEMPLATES.values(), ids=LONG_TEMPLATES)
def test_a_template_that_takes_all_memory_is_refused(folder: Path, template: str) -> None:
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(UserError, match="for a chat of two lines"):
        load(folder)


def test_a_template_in_the_configuration_is_tried_too(folder: Path) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text())
    for value in (
        LONG_TEMPLATES["a product"],
        [{"name": "tool_use", "template": "{{'a'*10**10}}"}],
    ):
        (folder / "tokenizer_config.json").write_text(
            json.dumps({**config, "chat_template": value})
        )
        with pytest.raises(UserError, match="for a chat of two lines"):
            load(folder)


def test_a_normalizer_that_takes_all_memory_is_refused(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Sequence", "normalizers": [REPLACE] * 6}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match="for a chat of two lines"):
        load(folder)


def test_an_endless_template_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = "{% for i in range(99999) %}" * 4 + "{% endfor %}" * 4
    (folder / "chat_template.jinja").write_text(endless)
    monkeypatch.setattr(tokenizer_trial, "_SECONDS", 1)
    with pytest.raises(UserError, match="for a chat of two lines"):
        try_tokenizer(folder)


def test_what_passed_is_not_tried_again_until_it_changes(
    folder: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try_tokenizer(folder)
    assert len(list((own_cache / "tokenizers").iterdir())) == 1
    started = []
    popen = tokenizer_trial.subprocess.Popen

    def counted(*args: Any, **options: Any) -> Any:
        started.append(args)
        return popen(*args, **options)

    monkeypatch.setattr(tokenizer_trial.subprocess, "Popen", counted)
    try_tokenizer(folder)
    assert not started
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    try_tokenizer(folder)
    assert len(started) == 1


def test_what_is_merely_wrong_is_left_to_its_use(folder: Path) -> None:
    """A trial judges time and memory; the right sentences are said where the files are used."""
    (folder / "tokenizer.json").write_text("{")
    (folder / "chat_template.jinja").write_text("{% no such tag %}")
    try_tokenizer(folder)


def test_the_real_tokenizer_passes(shared: Path) -> None:
    start = time.process_time()
    try_tokenizer(shared / "data" / "phi-3-mini-4k-instruct")
    assert time.process_time() - start < 5  # of this process; the trial's is its own
