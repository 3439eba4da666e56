"""Packing: several examples in one row, so that short ones do not leave the hardware idle."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal, overload

import numpy as np

from mlx_yoda.data.chat import Example
from mlx_yoda.data.segments import Segments, in_memory
from mlx_yoda.errors import UserError

Packing = Literal["none", "concat", "best_fit"]


@dataclass(frozen=True)
class Packed:
    """One row of training: segments laid end to end, which do not see each other.

    Attributes:
        tokens: `(L,)` int32.
        supervised: `(L,)` bool, whether a token is a target; False at each segment's start.
        lengths: tokens of each segment; they add up to L.
    """

    tokens: np.ndarray
    supervised: np.ndarray
    lengths: tuple[int, ...]


class PackedRows(Sequence[Packed]):
    """Rows that are put together from their segments when they are asked for.

    Attributes:
        lengths: `(R,)` int64, tokens of each row.
        targets: `(R,)` integers, targets of each row.
    """

    def __init__(
        self, segments: Segments, bins: tuple[np.ndarray, np.ndarray] | None = None
    ) -> None:
        """Group segments into rows.

        Args:
            segments: where the tokens are.
            bins: which segments each row has, as `first_fit_decreasing` gives them; None makes
                a row of each segment.
        """
        self._segments, self._bins = segments, bins
        self.lengths = self._summed(segments.lengths).astype(np.int64)
        self.targets = self._summed(segments.targets)

    @classmethod
    def of(cls, rows: Sequence[Packed]) -> "PackedRows":
        """Rows that are at hand, as they are if they are such rows already."""
        if isinstance(rows, cls):
            return rows
        counts = [len(row.lengths) for row in rows]
        pieces = (piece for row in rows for piece in _pieces(row))
        segments, _ = in_memory(lambda writer: writer.add_all(pieces))
        return cls(segments, (np.arange(len(segments)), np.cumsum([0, *counts])))

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> Packed: ...
    @overload
    def __getitem__(self, index: slice) -> list[Packed]: ...
    def __getitem__(self, index: int | slice) -> Packed | list[Packed]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        at = range(len(self))[index]  # counts from the end too, and raises beyond it
        if self._bins is None:
            tokens, supervised = self._segments.read(at)
            return Packed(tokens, supervised, (len(tokens),))
        members, starts = self._bins
        read = [self._segments.read(i) for i in members[starts[at] : starts[at + 1]].tolist()]
        tokens, supervised = zip(*read, strict=True)
        return Packed(np.concatenate(tokens), np.concatenate(supervised), tuple(map(len, tokens)))

    @property
    def largest(self) -> int:
        """The largest token id."""
        return int(self._segments.largest.max(initial=0))

    def digest(self) -> str:
        """A fingerprint of all rows in their order, from their checksums."""
        members, starts = self._bins or (slice(None), np.arange(len(self) + 1))
        found = sha256()
        for part in (self._segments.lengths, self._segments.checksums):
            found.update(part[members].tobytes())
        found.update(starts.astype(np.int64).tobytes())
        return found.hexdigest()[:16]

    def _summed(self, values: np.ndarray) -> np.ndarray:
        """The sum over each row's segments."""
        if self._bins is None:
            return values
        members, starts = self._bins
        sums = np.concatenate([[0], np.cumsum(values[members], dtype=np.int64)])
        summed: np.ndarray = np.diff(sums[starts])
        return summed


def pack(examples: Iterable[Example], packing: Packing, max_length: int) -> PackedRows:
    """Lay examples into rows, in memory.

    Args:
        examples: encoded; for `concat` uncut (`encode` with max_length None).
        packing: `none`, one example a row; `best_fit`, whole examples by first-fit decreasing
            into rows of at most `max_length`; `concat`, all tokens chained and cut into rows
            of exactly `max_length`, one segment each, whatever example they are from, as TRL's
            ConstantLengthDataset did. Its tail that fills no row is dropped, and so are rows
            without a target, from which nothing is learned.
        max_length: tokens in a row, at most.

    Raises:
        UserError: an example is longer than a row of `best_fit`, or `concat` fills no row.
    """
    made = pieces(examples, packing, max_length)
    segments, _ = in_memory(lambda writer: writer.add_all(made))
    return grouped(segments, packing, max_length)


def pieces(
    examples: Iterable[Example], packing: Packing, max_length: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The segments, tokens `(L,)` int32 and targets `(L,)` bool, that `grouped` makes rows of.

    Raises:
        UserError: `concat` fills no row.
    """
    if packing == "concat":
        return _chained(examples, max_length)
    return ((example.tokens, example.supervised) for example in examples)


def grouped(segments: Segments, packing: Packing, max_length: int) -> PackedRows:
    """Group segments into rows, by their lengths alone.

    Raises:
        UserError: a segment is longer than a row of `best_fit`.
    """
    if packing != "best_fit":
        return PackedRows(segments)
    return PackedRows(segments, first_fit_decreasing(segments.lengths, max_length))


def first_fit_decreasing(
    lengths: Sequence[int] | np.ndarray, capacity: int
) -> tuple[np.ndarray, np.ndarray]:
    """Bin packing: the longest first, each into the first bin that still has room.

    At most 11/9 of the least possible number of bins, and 6/9 (Dósa 2007). Items of one length
    are placed together: the first bin takes as many of them as it has room for, then the next.

    Args:
        lengths: `(S,)` sizes, 1 or more.
        capacity: room of each bin.

    Returns:
        Indices into `lengths`, bin after bin, `(S,)`, and where each bin starts, with the end
        `(bins + 1,)`; in a bin the longest comes first, and equal lengths keep their order.

    Raises:
        UserError: a length exceeds the capacity.
    """
    sizes = np.asarray(lengths, np.int64)
    longest = int(sizes.max(initial=0))
    if longest > capacity:
        raise UserError(
            f"an example of {longest} tokens does not fit into rows of {capacity}; raise "
            "data.max_length"
        )
    order = np.argsort(-sizes, kind="stable")
    room, bins = np.full(len(sizes), capacity), np.empty(len(sizes), np.int64)
    used = at = 0
    different, counts = np.unique(-sizes, return_counts=True)
    for size, count in zip((-different).tolist(), counts.tolist(), strict=True):
        fitting = np.flatnonzero(room[:used] >= size)
        fresh = -(-count // (capacity // size))
        fitting = np.concatenate([fitting, np.arange(used, used + fresh)])
        taken = np.minimum(np.cumsum(room[fitting] // size), count)
        taken = np.diff(taken, prepend=0)
        room[fitting] -= taken * size
        bins[at : at + count] = np.repeat(fitting, taken)
        used, at = max(used, int(bins[at + count - 1]) + 1), at + count
    into = np.argsort(bins, kind="stable")
    return order[into], np.concatenate([[0], np.cumsum(np.bincount(bins, minlength=used))])


def _pieces(row: Packed) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    cuts = np.cumsum(row.lengths)[:-1]
    return zip(np.split(row.tokens, cuts), np.split(row.supervised, cuts), strict=True)


def _chained(
    examples: Iterable[Example], max_length: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All tokens in a row, cut; only the examples that a cut goes through are held."""
    tokens, supervised = np.empty(0, np.int32), np.empty(0, bool)
    total = rows = 0
    for example in examples:
        total += len(example.tokens)
        chained = example.supervised.copy()
        chained[0] = example.whole  # where the loss is once another example comes before
        tokens = np.concatenate([tokens, example.tokens])
        supervised = np.concatenate([supervised, chained])
        while len(tokens) >= max_length:
            row, targets = tokens[:max_length], supervised[:max_length].copy()
            tokens, supervised = tokens[max_length:], supervised[max_length:]
            targets[0] = False  # nothing comes before a row's first token
            if targets.any():
                rows += 1
                yield row, targets
    if not rows:
        raise UserError(
            f"all examples together have {total} tokens, too few for one row of "
            f"{max_length}; lower data.max_length or take another data.packing"
        )
