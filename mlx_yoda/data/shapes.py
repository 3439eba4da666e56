"""A small set of shapes that holds every batch of a run.

A compiled step is compiled once a shape, and each shape stays in memory, so there are few of
them; each is the union of batches of like size, so little is padded.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

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
        enough = all(have >= want for have, want in zip(self, need, strict=True))
        padded_rows = self.rows * self.length > need.tokens
        return enough and padded_rows == (self.tokens > need.tokens)


def choose_shapes(
    first: Iterable[Shape], later: Iterable[Shape] = (), limit: int = _LIMIT
) -> list[Shape]:
    """Group batches by their token count and give each group one shape.

    Args:
        first: what the first epoch's batches need.
        later: what the other epochs' batches need. They are given the first epoch's shapes,
            enlarged where they must be, so that nothing new is compiled after it.
        limit: how many groups.

    Returns:
        At most `limit` shapes, each of them used in the first epoch, smallest first.
    """
    needs = list(first)
    low, high = min(n.tokens for n in needs), max(n.tokens for n in needs)
    width = max(1, -(-(high - low + 1) // limit))
    groups: dict[int, list[Shape]] = {}
    for need in needs:
        groups.setdefault((need.tokens - low) // width, []).append(need)
    occupied = sorted(groups)
    for need in later:
        wanted = (need.tokens - low) // width
        group = next((g for g in occupied if g >= wanted), occupied[-1])
        groups[group].append(need)
    shapes: list[Shape] = []
    for group in occupied:
        shapes.append(_union(groups[group], shapes[-1] if shapes else Shape(0, 0, 0, 0)))
    used = sorted({smallest(need, shapes) for need in needs})
    return [*used[:-1], shapes[-1]]


def smallest(need: Shape, shapes: Sequence[Shape]) -> Shape:
    """The smallest of the shapes that holds rows which need so much.

    Raises:
        ValueError: none of them does.
    """
    fitting = [shape for shape in shapes if shape.holds(need)]
    if not fitting:
        raise ValueError(f"no shape of {list(shapes)} holds rows that need {need}")
    return min(fitting)


def _union(group: Sequence[Shape], floor: Shape) -> Shape:
    """The shape for a group of needs, at least as large as the group's before in every size."""
    tokens, rows, length, targets = (max(sizes) for sizes in zip(*group, floor, strict=True))
    exact = Shape(tokens, rows, length, _up(targets))
    if all(exact.holds(need) for need in group):  # full rows, as concat makes them: no padding
        return exact
    tokens, length = _up(max(tokens, *(need.tokens + 1 for need in group))), _up(length)
    if rows * length < tokens:
        length = _up(-(-tokens // rows))
    return Shape(tokens, rows, length, _up(targets))


def _up(size: int) -> int:
    return -(-size // _ROUND) * _ROUND
