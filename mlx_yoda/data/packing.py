"""Packing: several examples in one row, so that short ones do not leave the hardware idle."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mlx_yoda.data.chat import Example
from mlx_yoda.errors import UserError


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


def pack(
    examples: Sequence[Example],
    packing: Literal["none", "concat", "best_fit"],
    max_length: int,
) -> list[Packed]:
    """Lay examples into rows.

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
    match packing:
        case "none":
            return [_join([example]) for example in examples]
        case "concat":
            return _concat(examples, max_length)
        case "best_fit":
            rows = first_fit_decreasing([len(e.tokens) for e in examples], max_length)
            return [_join([examples[i] for i in row]) for row in rows]


def first_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Bin packing: the longest first, each into the first bin that still has room.

    At most 11/9 of the least possible number of bins, and 6/9 (Dósa 2007). A tree of the bins'
    room finds the first one in O(log n).

    Args:
        lengths: sizes, 1 or more.
        capacity: room of each bin.

    Returns:
        Indices into `lengths`, a list for each bin; equal lengths keep their order.

    Raises:
        UserError: a length exceeds the capacity.
    """
    if lengths and max(lengths) > capacity:
        raise UserError(
            f"an example of {max(lengths)} tokens does not fit into rows of {capacity}; raise "
            "data.max_length"
        )
    leaves = 1 << max(0, len(lengths) - 1).bit_length()
    room = [capacity] * (2 * leaves)  # node i has the most room of its children, 2i and 2i + 1
    bins: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        node = 1
        while node < leaves:
            node *= 2
            node += room[node] < lengths[i]
        if node - leaves == len(bins):
            bins.append([])
        bins[node - leaves].append(i)
        room[node] -= lengths[i]
        while node := node // 2:
            room[node] = max(room[2 * node], room[2 * node + 1])
    return bins


def _join(examples: Sequence[Example]) -> Packed:
    return Packed(
        tokens=np.concatenate([example.tokens for example in examples]),
        supervised=np.concatenate([example.supervised for example in examples]),
        lengths=tuple(len(example.tokens) for example in examples),
    )


def _concat(examples: Sequence[Example], max_length: int) -> list[Packed]:
    tokens = np.concatenate([np.empty(0, np.int32), *(e.tokens for e in examples)])
    supervised = np.concatenate([np.empty(0, bool), *(_chained(e) for e in examples)])
    starts = range(0, len(tokens) - max_length + 1, max_length)
    supervised[list(starts)] = False  # nothing comes before a row's first token
    rows = [slice(start, start + max_length) for start in starts]
    packed = [Packed(tokens[r], supervised[r], (max_length,)) for r in rows if supervised[r].any()]
    if not packed:
        raise UserError(
            f"all examples together have {len(tokens)} tokens, too few for one row of "
            f"{max_length}; lower data.max_length or take another data.packing"
        )
    return packed


def _chained(example: Example) -> np.ndarray:
    """Where the loss is once another example comes before this one."""
    supervised = example.supervised.copy()
    supervised[0] = example.whole
    return supervised
