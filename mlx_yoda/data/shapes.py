"""A small set of shapes that holds every batch of a run.

A compiled step is compiled once a shape, and each shape stays in memory, so there are few of
them; each is the union of batches of like size, so little is padded.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_LIMIT = 16  # shapes; Yoda rows at batch 4 are padded by 3 % with 16 and by 6 % with 8
_ROUND = 8  # sizes are multiples of this


class Shape(NamedTuple):
    """The sizes a batch is padded to, so that a compiled step sees few of them."""

    tokens: int  # N
    rows: int  # B
    length: int  # T
    targets: int  # M

    def holds(self, need: "Shape") -> bool:
        """Whether rows that need so much fit.

        Where one side is padded the other must be too: padding of the rows points to a spare
        token, and padding of the tokens to a spare place in the rows.
        """
        return bool(self.all_held(np.array([need]))[0])

    def all_held(self, needs: np.ndarray) -> np.ndarray:
        """`holds` of each need, from `(n, 4)` to `(n,)` bool."""
        enough = (np.array(self) >= needs).all(axis=1)
        padded_rows = self.rows * self.length > needs[:, 0]
        held: np.ndarray = enough & (padded_rows == (self.tokens > needs[:, 0]))
        return held


def choose_shapes(
    first: Sequence[Shape] | np.ndarray,
    later: Sequence[Shape] | np.ndarray = (),
    limit: int = _LIMIT,
) -> list[Shape]:
    """Group batches by their token count and give each group one shape.

    Args:
        first: what the first epoch's batches need, `(n, 4)`.
        later: what the other epochs' batches need. They are given the first epoch's shapes,
            enlarged where they must be, so that nothing new is compiled after it.
        limit: how many groups.

    Returns:
        At most `limit` shapes, each of them used in the first epoch, smallest first.
    """
    needs, others = (np.asarray(some, np.int64).reshape(-1, 4) for some in (first, later))
    low, high = int(needs[:, 0].min()), int(needs[:, 0].max())
    width = max(1, -(-(high - low + 1) // limit))
    occupied, own = np.unique((needs[:, 0] - low) // width, return_inverse=True)
    wanted = np.searchsorted(occupied, (others[:, 0] - low) // width)
    group = np.concatenate([own, np.minimum(wanted, len(occupied) - 1)])
    everything = np.concatenate([needs, others])
    shapes: list[Shape] = []
    for number in range(len(occupied)):
        floor = shapes[-1] if shapes else Shape(0, 0, 0, 0)
        shapes.append(_union(everything[group == number], floor))
    return [*_used(needs, shapes)[:-1], shapes[-1]]


def smallest(need: Shape, shapes: Sequence[Shape]) -> Shape:
    """The smallest of the shapes that holds rows which need so much.

    Raises:
        ValueError: none of them does.
    """
    fitting = [shape for shape in shapes if shape.holds(need)]
    if not fitting:
        raise ValueError(f"no shape of {list(shapes)} holds rows that need {need}")
    return min(fitting)


def _used(needs: np.ndarray, shapes: Sequence[Shape]) -> list[Shape]:
    """Those of the shapes that are `smallest` for some need `(n, 4)`, smallest first."""
    used = []
    for shape in sorted(set(shapes)):
        fits = shape.all_held(needs)
        if fits.any():
            used.append(shape)
            needs = needs[~fits]
    return used


def _union(group: np.ndarray, floor: Shape) -> Shape:
    """The shape for a group of needs `(n, 4)`, at least as large as the group's before it."""
    tokens, rows, length, targets = np.maximum(group.max(axis=0), floor).tolist()
    exact = Shape(tokens, rows, length, _up(targets))
    if exact.all_held(group).all():  # full rows, as concat makes them: no padding
        return exact
    tokens, length = _up(max(tokens, int(group[:, 0].max()) + 1)), _up(length)
    if rows * length < tokens:
        length = _up(-(-tokens // rows))
    return Shape(tokens, rows, length, _up(targets))


def _up(size: int) -> int:
    return -(-size // _ROUND) * _ROUND
