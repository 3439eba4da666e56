"""The order of the rows, and batches in the ragged layout.

The rows of an optimizer step depend on (seed, epoch) and the step's size alone: not on how many
of them fit into memory at once, and not on any generator's state. Within a step the rows are
sorted by length, so that micro-batches hold rows of like length.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import numpy as np

from mlx_yoda.data.packing import Packed, PackedRows
from mlx_yoda.data.shapes import Shape, smallest

_POOL = 8  # optimizer steps whose rows are sorted together; more sorts better and mixes less


def needed(rows: Sequence[Packed]) -> Shape:
    """What these rows need at least."""
    return Shape(
        tokens=sum(len(row.tokens) for row in rows),
        rows=len(rows),
        length=max(len(row.tokens) for row in rows),
        targets=sum(int(row.supervised[1:].sum()) for row in rows),
    )


@dataclass(frozen=True)
class Batch:
    """A micro-batch: sequences end to end, and where attention and the loss find them.

    Attributes:
        tokens: `(N,)` int32.
        rows: `(B, T)` int32, index into `tokens` for each place of a row.
        flat: `(N,)` int32, place `b * T + t` of each token.
        segments: `(B, T)` int32 where several examples share a row, else None.
        loss_at: `(M,)` int32, the positions in `tokens` whose next token is predicted.
        targets: `(M,)` int32, those next tokens.
        weights: `(M,)` float32, 1 for a target and 0 for padding.
        first: the number of the first token within its optimizer step.
        input_tokens: tokens of the data among N.
        supervised_tokens: targets of the data among M.
        indices: which rows of the data these are.
    """

    tokens: np.ndarray
    rows: np.ndarray
    flat: np.ndarray
    segments: np.ndarray | None
    loss_at: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    first: int
    input_tokens: int
    supervised_tokens: int
    indices: tuple[int, ...]


class EpochOrder(NamedTuple):
    """Which rows each optimizer step of an epoch takes.

    Attributes:
        rows: `(R,)` row indices, step after step; within a step the longest first.
        starts: `(steps + 1,)`, where in `rows` each step begins, and the end.
    """

    rows: np.ndarray
    starts: np.ndarray

    def step(self, index: int) -> list[int]:
        """The rows of one step of the epoch."""
        taken: list[int] = self.rows[self.starts[index] : self.starts[index + 1]].tolist()
        return taken

    def share(self, rank: int, size: int) -> "EpochOrder":
        """The part of every step that is one of `size` processes'; see `share`."""
        counts = np.diff(self.starts)
        first, stop = share(counts, rank, size)
        place = np.arange(len(self.rows)) - np.repeat(self.starts[:-1], counts)
        mine = (place >= np.repeat(first, counts)) & (place < np.repeat(stop, counts))
        return EpochOrder(self.rows[mine], np.concatenate([[0], np.cumsum(stop - first)]))

    def needs(self, rows: PackedRows, size: int) -> tuple[np.ndarray, np.ndarray]:
        """What the micro-batches of at most `size` rows need at least.

        Returns:
            The step of each micro-batch `(M,)`, and its `Shape` `(M, 4)`.
        """
        counts = np.diff(self.starts)
        steps = np.repeat(np.arange(len(counts)), -(-counts // size))
        firsts = np.flatnonzero(
            (np.arange(len(self.rows)) - np.repeat(self.starts[:-1], counts)) % size == 0
        )
        return steps, group_needs(rows, self.rows, firsts)


def group_needs(rows: PackedRows, order: np.ndarray, firsts: np.ndarray) -> np.ndarray:
    """What groups of rows need at least: `needed` of each, `(groups, 4)`.

    Args:
        rows: the rows.
        order: `(R,)` their indices, group after group.
        firsts: where in `order` each group begins.
    """
    lengths = rows.lengths[order]
    return np.stack(
        [
            np.add.reduceat(lengths, firsts),
            np.diff(firsts, append=len(order)),
            np.maximum.reduceat(lengths, firsts),
            np.add.reduceat(rows.targets[order], firsts, dtype=np.int64),
        ],
        axis=1,
    )


def epoch_order(
    lengths: Sequence[int] | np.ndarray, rows_per_step: int, seed: int, epoch: int
) -> EpochOrder:
    """Order the rows of an epoch; every row is taken exactly once.

    Rows are shuffled, pools of a few steps' rows are sorted by length and cut into steps, and
    the steps are shuffled. The last, smaller step is trained on as well.

    Args:
        lengths: `(R,)` tokens of each row.
        rows_per_step: rows of one optimizer step.
        seed: the run's seed.
        epoch: counted from 0.
    """
    rng = np.random.default_rng([seed, epoch])
    order, length = rng.permutation(len(lengths)), np.asarray(lengths)
    pool = rows_per_step * _POOL
    whole = len(order) // pool * pool
    order = np.concatenate(
        [_sorted(order[:whole].reshape(-1, pool), length), _sorted(order[None, whole:], length)]
    )
    firsts = np.arange(0, len(order), rows_per_step)
    sizes = np.diff(firsts, append=len(order))
    steps = rng.permutation(len(firsts))
    starts = np.concatenate([[0], np.cumsum(sizes[steps])])
    moved = np.repeat(firsts[steps] - starts[:-1], sizes[steps])
    narrow = np.int32 if len(order) < 2**31 else np.int64  # it is kept for all of the epoch
    return EpochOrder(order.astype(narrow)[np.arange(len(order)) + moved], starts)


def _sorted(pools: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Each pool's rows, longest first, in one array."""
    by_length = np.argsort(-length[pools], axis=1, kind="stable")
    rows: np.ndarray = np.take_along_axis(pools, by_length, axis=1).ravel()
    return rows


Counts = TypeVar("Counts", int, np.ndarray)


def share(count: Counts, rank: int, size: int) -> tuple[Counts, Counts]:
    """Which of a step's rows are one process's: where they start, and where they stop.

    Each row is in one part, and only in one; of fewer rows than processes some get none. Rows of
    a step are of like length, so equal numbers of them are about equal work.

    Args:
        count: rows of the step, or of several steps.
        rank: of the process, from 0.
        size: how many processes there are.
    """
    return count * rank // size, count * (rank + 1) // size


def micro_batches(
    rows: Sequence[Packed],
    indices: Sequence[int],
    size: int,
    shapes: Sequence[Shape],
    first: int = 0,
) -> Iterator[Batch]:
    """Cut an optimizer step's rows into batches of at most `size`, each in the smallest shape.

    Args:
        rows: the data.
        indices: which of them: the step's, or one process's part of them.
        size: rows of a batch.
        shapes: to choose from.
        first: how many tokens of the step lie before these rows.
    """
    for start in range(0, len(indices), size):
        taken = indices[start : start + size]
        batch = collate([rows[i] for i in taken], shapes, taken, first)
        first += batch.input_tokens
        yield batch


def collate(
    rows: Sequence[Packed], shapes: Sequence[Shape], indices: Sequence[int] = (), first: int = 0
) -> Batch:
    """Lay rows end to end in the smallest of the shapes that holds them.

    Args:
        rows: the rows.
        shapes: to choose from.
        indices: which rows of the data these are.
        first: how many tokens of the optimizer step lie in batches before this one.

    Raises:
        ValueError: none of the shapes is large enough.
    """
    need = needed(rows)
    shape = smallest(need, shapes)
    n, b, t = shape.tokens, shape.rows, shape.length
    tokens = np.zeros(n, np.int32)
    grid = np.full((b, t), n - 1, np.int32)  # padding of the rows points to padding of the tokens
    segments = np.full((b, t), -1, np.int32)
    loss_at: list[np.ndarray] = []
    at = 0
    for i, row in enumerate(rows):
        length = len(row.tokens)
        tokens[at : at + length] = row.tokens
        grid[i, :length] = np.arange(at, at + length)
        segments[i, :length] = np.repeat(np.arange(len(row.lengths)), row.lengths)
        loss_at.append(at + np.flatnonzero(row.supervised[1:]))
        at += length
    real = grid.ravel() < need.tokens
    spare = int(np.argmin(real))  # the first place of padding, if there is one
    flat = np.full(n, spare, np.int32)
    flat[grid.ravel()[real]] = np.flatnonzero(real)
    places = np.concatenate(loss_at).astype(np.int32)
    shared = any(len(row.lengths) > 1 for row in rows)
    return Batch(
        tokens=tokens,
        rows=grid,
        flat=flat,
        segments=segments if shared else None,
        loss_at=_pad(places, shape.targets),
        targets=_pad(tokens[places + 1], shape.targets),
        weights=_pad(np.ones(need.targets, np.float32), shape.targets),
        first=first,
        input_tokens=need.tokens,
        supervised_tokens=need.targets,
        indices=tuple(indices),
    )


def apart(batch: Batch) -> Batch:
    """A batch whose rows hold one segment each, for a model that cannot mask segments.

    The tokens, their order and their numbers stay; one of padding is added at their end, to which
    the rows' padding points. The rows' sizes are rounded up, so that a compiled step sees few.
    """
    if batch.segments is None:
        return batch
    real = batch.segments >= 0
    owner = np.nonzero(real)[0]  # (n,) the row that each token shared
    begins = np.diff(owner, prepend=-1) != 0
    begins |= np.diff(batch.segments[real], prepend=-1) != 0
    number = np.cumsum(begins) - 1  # (n,) the row that it has now
    place = np.arange(len(number)) - np.flatnonzero(begins)[number]
    shape = _coarse(int(number[-1]) + 1), _coarse(int(place.max()) + 1)
    spare = len(batch.tokens)
    rows = np.full(shape, spare, np.int32)
    rows[number, place] = batch.rows[real]
    flat = np.zeros(spare + 1, np.int32)  # where padding points matters not: it has no gradient
    flat[batch.rows[real]] = number * shape[1] + place
    tokens = np.append(batch.tokens, batch.tokens.dtype.type(0))
    return replace(batch, tokens=tokens, rows=rows, flat=flat, segments=None)


def _coarse(size: int) -> int:
    """A size rounded up to one of four between a power of two and the next."""
    step = max(1, 1 << (size - 1).bit_length() - 3)
    return -(-size // step) * step


def _pad(values: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([values, np.zeros(size - len(values), values.dtype)])
