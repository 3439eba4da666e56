"""Encoding in several processes gives what encoding in one gives, and leaves none behind."""

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_yoda.data import workers
from mlx_yoda.data.chat import encode_each
from mlx_yoda.data.columns import Conversation
from mlx_yoda.data.workers import encode_in_processes, processes
from mlx_yoda.errors import UserError
from tests.machine import PATIENCE


def chats(count: int) -> Iterator[Conversation]:
    for i in range(count):
        if i % 7 == 0:
            yield Conversation(None, f"plain <|end|> {i}", f"x:{i}")
        else:
            said = (
                {"role": "user", "content": f"é{i}" + "<|end|>" * (i % 3)},
                {"role": "assistant", "content": "no" * i},
            )
            yield Conversation(said, None, f"x:{i}", context=1)


def children() -> set[int]:
    """Of this process, so far as they are ours."""
    listed = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    if not listed.exists():
        pytest.skip("only Linux lists a process's children")
    found = set(map(int, listed.read_text().split()))
    return {pid for pid in found if b"workers" in Path(f"/proc/{pid}/cmdline").read_bytes()}


@pytest.mark.slow
@pytest.mark.parametrize("train_on", ["completions", "all"])
def test_the_same_examples_in_the_same_order(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, train_on: Any
) -> None:
    monkeypatch.setattr(workers, "_BATCH", 9)
    how = {"train_on": train_on, "max_length": 40}
    wanted = list(encode_each(chats(100), tokenizer, **how))
    found = list(encode_in_processes(chats(100), tokenizer, **how, count=3))
    for (example, uncut), (other, other_uncut) in zip(found, wanted, strict=True):
        assert (example.whole, uncut) == (other.whole, other_uncut)
        assert (example.tokens.dtype, example.supervised.dtype) == (np.int32, bool)
        np.testing.assert_array_equal(example.tokens, other.tokens)
        np.testing.assert_array_equal(example.supervised, other.supervised)
    assert any(len(example.tokens) < uncut for example, uncut in found)
    assert not children()


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 1, 9])
def test_fewer_conversations_than_processes(tokenizer: Any, count: int) -> None:
    how: Any = {"train_on": "all", "max_length": None}
    assert len(list(encode_in_processes(chats(count), tokenizer, **how, count=2))) == count


def test_the_first_row_that_cannot_be_encoded_is_named(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_BATCH", 4)

    def broken() -> Iterator[Conversation]:
        yield from chats(10)
        yield Conversation(({"role": "user", "content": "x"},), None, "x:first")
        yield Conversation(({"role": "user", "content": "x"},), None, "x:second")
        yield from chats(50)

    encoded = encode_in_processes(
        broken(), tokenizer, train_on="completions", max_length=None, count=2
    )
    with pytest.raises(UserError, match="x:first: nothing to learn from"):
        list(encoded)
    assert not children()


def test_a_process_that_is_killed_is_told_of(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_BATCH", 4)
    encoded = encode_in_processes(chats(500), tokenizer, train_on="all", max_length=9, count=2)
    next(encoded)
    os.kill(min(children()), signal.SIGKILL)
    with pytest.raises(UserError, match="has ended before its time"):
        list(encoded)
    assert not children()


def test_one_that_is_not_needed_any_more_ends(tokenizer: Any) -> None:
    encoded = encode_in_processes(chats(900), tokenizer, train_on="all", max_length=9, count=2)
    next(encoded)
    assert len(children()) == 2
    encoded.close()  # type: ignore[attr-defined]
    assert not children()


@pytest.mark.parametrize("deaf", [True, False])
def test_one_whose_master_is_gone_ends_without_a_word(tokenizer: Any, deaf: bool) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", "from mlx_yoda.data.workers import work; work()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert worker.stdin and worker.stdout and worker.stderr
    if deaf:
        worker.stdout.close()
    said = pickle.dumps((tokenizer, {"train_on": "all", "max_length": 9}))
    said += pickle.dumps(list(chats(9)))
    worker.stdin.write(said if deaf else said[:-9])
    worker.stdin.close()
    with worker.stderr:
        assert worker.stderr.read() == b""
    worker.stdout.close()
    assert worker.wait(PATIENCE) == 0


def test_what_lies_in_the_current_folder_is_no_library(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("numpy", "tokenizers", "queue"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('of the user')")
    monkeypatch.chdir(tmp_path)
    encoded = encode_in_processes(chats(9), tokenizer, train_on="all", max_length=None, count=1)
    assert len(list(encoded)) == 9


def test_half_of_the_cores_work(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, count in ((None, 2), (1, 2), (8, 4), (24, 12)):
        monkeypatch.setattr(workers.os, "cpu_count", lambda cores=cores: cores)
        assert processes() == count
