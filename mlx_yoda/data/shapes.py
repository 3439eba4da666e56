"""A small set of shapes that holds every batch of a run.

A compiled step is compiled once a shape, and each shape stays in memory, so there are few of
them; each is the union of batches of like size, so little is padded.
"""

from collections.abc import Iterable, Sequence

from mlx_yoda.data.batches import Shape

_LIMIT = 16  # shapes; Yoda rows at batch 4 are padded by 3 % with 16 and by 6 % with 8
_ROUND = 8  # sizes are multiples of this


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
        at_least = [g for g in occupied if g >= wanted]
        groups[at_least[0] if at_least else occupied[-1]].append(need)
    return sorted({_union(group) for group in groups.values()})


def _union(group: Sequence[Shape]) -> Shape:
    tokens, rows, length, targets = (max(sizes) for sizes in zip(*group, strict=True))
    exact = Shape(tokens, rows, length, _up(targets))
    if all(exact.holds(need) for need in group):  # full rows, as concat makes them: no padding
        return exact
    length = _up(length)
    if rows * length == tokens:
        length += _ROUND
    return Shape(min(_up(tokens + 1), rows * length), rows, length, _up(targets))


def _up(size: int) -> int:
    return -(-size // _ROUND) * _ROUND
