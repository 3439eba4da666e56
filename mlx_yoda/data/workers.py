"""Encoding in several processes: what comes out is `encode_each`'s, in its order.

They are programs of their own, not forks, for a fork of a process that computes on a GPU is not
safe; each is spoken to over its standard input and output, and ends when that is closed, so that
none outlives its master.
"""

import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, BinaryIO, Literal, NamedTuple, cast

import numpy as np

from mlx_yoda.child import python_command, python_environment
from mlx_yoda.data.chat import Example, encode_each
from mlx_yoda.data.columns import Conversation
from mlx_yoda.data.remarks import Remark
from mlx_yoda.errors import UserError

_BATCH = 256  # conversations that a process is given at a time
_LIGHT = {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}


class _Result(NamedTuple):
    """The examples of a batch, end to end, which is quicker to hand over than one by one."""

    tokens: np.ndarray
    supervised: np.ndarray
    lengths: list[int]
    wholes: list[bool]
    remarks: list[tuple[Remark, ...]]
    uncut: list[int]

    @classmethod
    def of(cls, made: Sequence[tuple[Example, int]]) -> "_Result":
        return cls(
            np.concatenate([example.tokens for example, _ in made]),
            np.concatenate([example.supervised for example, _ in made]),
            [len(example.tokens) for example, _ in made],
            [example.whole for example, _ in made],
            [example.remarks for example, _ in made],
            [uncut for _, uncut in made],
        )

    def made(self) -> Iterator[tuple[Example, int]]:
        cuts = np.cumsum(self.lengths)[:-1]
        parts = np.split(self.tokens, cuts), np.split(self.supervised, cuts)
        told = zip(self.wholes, self.remarks, strict=True)
        for tokens, supervised, how, uncut in zip(*parts, told, self.uncut, strict=True):
            yield Example(tokens, supervised, *how), uncut


def processes() -> int:
    """How many to take on this machine: half of its cores, the other half are often slow ones."""
    return max(2, (os.cpu_count() or 1) // 2)


def encode_in_processes(
    conversations: Iterable[Conversation],
    tokenizer: Any,
    *,
    train_on: Literal["completions", "all"],
    max_length: int | None,
    count: int,
) -> Iterator[tuple[Example, int]]:
    """As `mlx_yoda.data.chat.encode_each`, by `count` processes.

    Raises:
        UserError: as `encode_each`, or one of the processes was ended.
    """
    how = {"train_on": train_on, "max_length": max_length}
    workers = [
        subprocess.Popen(
            python_command(f"from {__name__} import work; work()"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=python_environment(**_LIGHT),
            start_new_session=True,  # Ctrl-C is for the master
        )
        for _ in range(count)
    ]
    try:
        for worker in workers:
            _send(worker, (tokenizer, how))
        busy: deque[subprocess.Popen[bytes]] = deque()
        source = iter(conversations)
        batches = iter(lambda: list(islice(source, _BATCH)), [])
        for number, batch in enumerate(batches):
            if number >= count:
                yield from _received(busy[0])
                busy.rotate(-1)
            else:
                busy.append(workers[number])
            _send(busy[-1], batch)
        for worker in busy:
            yield from _received(worker)
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def _send(worker: "subprocess.Popen[bytes]", what: object) -> None:
    pipe = cast(BinaryIO, worker.stdin)
    try:
        pickle.dump(what, pipe, pickle.HIGHEST_PROTOCOL)
        pipe.flush()
    except BrokenPipeError:
        raise _ended() from None


def _received(worker: "subprocess.Popen[bytes]") -> Iterator[tuple[Example, int]]:
    try:
        result = pickle.load(cast(BinaryIO, worker.stdout))
    except (EOFError, pickle.UnpicklingError):
        raise _ended() from None
    if isinstance(result, str):
        raise UserError(result)
    return cast(_Result, result).made()


def _ended() -> UserError:
    return UserError(
        "one of the processes that tokenise the rows has ended before its time; its last words "
        "are above, or the system has ended it for want of memory: make room, and start again"
    )


def work() -> None:
    """A worker's life: the tokenizer, then batches until there are no more.

    It ends without a word if the master does, whatever either was about to say.
    """
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever libraries print is no result
    tokenizer, how = _given(source)
    while True:
        batch = _given(source)
        result: _Result | str
        try:
            result = _Result.of(list(encode_each(batch, tokenizer, **how)))
        except UserError as error:
            result = str(error)
        try:
            pickle.dump(result, sink, pickle.HIGHEST_PROTOCOL)
            sink.flush()
        except BrokenPipeError:
            os._exit(0)  # for closing the sink would be an error again


def _given(source: BinaryIO) -> Any:
    try:
        return pickle.load(source)
    except (EOFError, pickle.UnpicklingError):  # the end, perhaps in the middle of something
        os._exit(0)
