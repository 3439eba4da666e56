"""The processes that train together: what they add up, and what the first one tells the others.

All communication of a run goes through here, and in a step it is one sum over everything.
"""

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map

from mlx_yoda import launcher
from mlx_yoda.errors import UserError, first_line
from mlx_yoda.train.line import End, Line, open_line

Tree = TypeVar("Tree")

_UNSIGNED = {1: mx.uint8, 2: mx.uint16, 4: mx.uint32, 8: mx.uint64}  # by bytes
_PATIENCE = 120  # seconds for all processes to have come
_LATE = f"some have not come within {_PATIENCE} seconds"


class Group:
    """A process by itself, which is its own sum; `Joined` is one of several.

    Attributes:
        rank: which process this is, from 0; the first one reads and writes the output folder.
        size: how many there are.
        wish: the signal that asks this process to stop, or 0.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size, self.wish = rank, size, 0

    @property
    def leads(self) -> bool:
        """Whether this is the process that reports, saves and answers."""
        return self.rank == 0

    def wished(self) -> int:
        """The signal that asks one of the processes to stop, as all knew in the last step, or 0."""
        return self.wish

    def total(self, sums: Tree, step: int, tokens: int) -> tuple[Tree, int]:
        """Add up an optimizer step over the processes.

        Args:
            sums: a tree of arrays.
            step: counted from 0.
            tokens: a number to be added up as well.

        Raises:
            UserError: a process is gone, or the step had been added up before.
        """
        return sums, tokens

    def gathered(self, value: Any) -> list[Any]:
        """Everybody's value, which JSON can hold, by rank."""
        return [value]

    def told(self, value: Any) -> Any:
        """The first process's value, which JSON can hold; what the others say is not looked at."""
        return self.gathered(value if self.leads else None)[0]

    def given(self, tree: Tree) -> Tree:
        """The first process's arrays, to the bit; the others' have the same shapes."""
        return tree

    def leave(self) -> None:
        """Go when all have done their part, the first process last."""

    def fail(self, words: str, code: int) -> bool:
        """Tell the others to end as well; says whether the first process speaks for this one."""
        return False


class Joined(Group):
    """One of several processes, over `mx.distributed`.

    Whatever is summed is evaluated before and after: a GPU that waits for the network in the
    middle of its work may be taken for one that hangs.
    """

    def __init__(self, group: mx.distributed.Group, end: End) -> None:
        super().__init__(group.rank(), group.size())
        self._group, self._step, self._wishes = group, -1, mx.zeros((self.size,))
        self._line: Line | None = None  # so far errors cannot be explained
        addresses = launcher.addresses(os.environ)
        self._line = open_line(self.rank, self.size, self.gathered, addresses, end)

    def wished(self) -> int:
        return int(cast(float, self._wishes.max().item()))

    def total(self, sums: Tree, step: int, tokens: int) -> tuple[Tree, int]:
        if step <= self._step:  # the others have gone on
            raise UserError(
                f"memory ran out in step {step + 1} after the gradients had been added up over the "
                "processes; go on with --resume and a smaller train.per_device_train_batch_size."
            )
        mx.eval(sums)  # should memory run out, it is before the others hear of the step
        self._step = step
        wishes = mx.array(np.eye(1, self.size, self.rank, dtype=np.float32)[0] * self.wish)
        self._wishes, total, *summed = self._sum([wishes, mx.array(float(tokens)), *_leaves(sums)])
        rest = iter(summed)
        return tree_map(lambda _: next(rest), sums), round(cast(float, total.item()))

    def gathered(self, value: Any) -> list[Any]:
        said = np.frombuffer(json.dumps(value).encode(), np.uint8)
        sizes = np.array(self._evaluated(mx.distributed.all_gather, mx.array([said.size])))
        padded = np.zeros(sizes.max(), np.uint8)
        padded[: said.size] = said
        all_said = np.array(self._evaluated(mx.distributed.all_gather, mx.array(padded)))
        rows = all_said.reshape(self.size, -1)
        return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]

    def given(self, tree: Tree) -> Tree:
        bits = [leaf.reshape(-1).view(_UNSIGNED[leaf.dtype.size]) for leaf in _leaves(tree)]
        summed = iter(self._sum([b if self.leads else mx.zeros_like(b) for b in bits]))
        return tree_map(lambda leaf: next(summed).view(leaf.dtype).reshape(leaf.shape), tree)

    def leave(self) -> None:
        if self._line:
            self._line.leave()

    def fail(self, words: str, code: int) -> bool:
        return self._line is not None and self._line.fail(words, code)

    def _sum(self, arrays: list[mx.array]) -> list[mx.array]:
        """Each array's sum over the processes; one message a dtype, as each costs its latency."""
        summed = list(arrays)
        for dtype in {str(array.dtype): array.dtype for array in arrays}.values():
            these = [i for i, array in enumerate(arrays) if array.dtype == dtype]
            flat = mx.concatenate([arrays[i].reshape(-1) for i in these])
            total = self._evaluated(mx.distributed.all_sum, flat)
            ends = np.cumsum([arrays[i].size for i in these]).tolist()
            for i, part in zip(these, mx.split(total, ends[:-1]), strict=True):
                summed[i] = part.reshape(arrays[i].shape)
        return summed

    def _evaluated(self, collective: Any, array: mx.array) -> mx.array:
        try:
            mx.eval(array)
            result: mx.array = collective(array, group=self._group)
            mx.eval(result)
        except RuntimeError as error:
            if self._line:
                self._line.wait()  # it knows which process is gone, and ends this one
            raise UserError(
                f"the processes have lost each other ({first_line(error)}); go on with --resume."
            ) from None
        return result


def _leaves(tree: Any) -> list[mx.array]:
    return [cast(mx.array, leaf[1]) for leaf in tree_flatten(tree)]


def join(end: End) -> Group:
    """Meet the other processes, if a launcher has started several.

    Args:
        end: called from another thread when a process is lost, with what is to be said and the
            exit code; it has to end this process, which may be waiting for ever.

    Raises:
        UserError: the processes do not find each other.
    """
    if launcher.processes(os.environ) == 1:
        return Group()
    late: list[int] = []
    try:
        with _patience(late, end):
            group = mx.distributed.init()
            return Joined(group, end) if group.size() > 1 else Group()
    except (RuntimeError, OSError) as error:
        raise UserError(_apart(_LATE if late else first_line(error))) from None


@contextmanager
def _patience(late: list[int], end: End) -> Iterator[None]:
    """Bound the time that all processes may take to come.

    MLX holds the GIL while it waits for others to connect, which a signal alone interrupts; and
    releases it while it waits for their words, where Python handles no signal.

    Args:
        late: gets the signal, should it come.
        end: see `join`.
    """
    timer = threading.Timer(_PATIENCE + 5, end, (_apart(_LATE), 2))
    timer.daemon = True
    timer.start()
    main = threading.current_thread() is threading.main_thread()  # others can handle no signals
    if main:
        before = signal.signal(signal.SIGALRM, lambda signum, frame: late.append(signum))
        signal.alarm(_PATIENCE)
    try:
        yield
    finally:
        timer.cancel()
        if main:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)


def _apart(why: str) -> str:
    return (
        f"the processes do not find each other ({why}); see that each is started, and that the "
        "hosts reach one another at the addresses given to mlx.launch."
    )
