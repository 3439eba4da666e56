"""An adapter fused into a weight, and what is lost where the result must be quantised again."""

from typing import NamedTuple, cast

import mlx.core as mx


class Loss(NamedTuple):
    """How much of an adapter's change a quantised weight takes up.

    Attributes:
        cosine: between the change that was wanted and the one that is there, 1 at best.
        error: norm of their difference over the norm of what was wanted, 0 at best.
    """

    cosine: float
    error: float


def fused(
    weight: mx.array,
    a: mx.array,
    b: mx.array,
    scale: float,
    magnitude: mx.array | None = None,
) -> mx.array:
    """The weight that computes with one product what base and adapter compute with three.

    It is computed in float32 whatever the base is, so that only one rounding remains: the
    caller's cast.

    Args:
        weight: `(out, in)`, the base's, of any floating dtype.
        a: `(r, in)`.
        b: `(out, r)`.
        scale: what the update is multiplied by.
        magnitude: `(out,)`, the lengths of the rows in DoRA (arXiv 2402.09353), or None.

    Returns:
        `(out, in)` float32.
    """
    sum_ = weight.astype(mx.float32) + scale * (b.astype(mx.float32) @ a.astype(mx.float32))
    if magnitude is None:
        return sum_
    return (magnitude / mx.linalg.norm(sum_, axis=1))[:, None] * sum_


def loss(base: mx.array, wanted: mx.array, got: mx.array) -> Loss:
    """Compare the change that was wanted of a weight with the one that it got.

    Args:
        base: `(out, in)`, without the adapter.
        wanted: `(out, in)`, fused and exact.
        got: `(out, in)`, fused and rounded.
    """
    base = base.astype(mx.float32)
    want, have = wanted - base, got.astype(mx.float32) - base
    wish, length = _norm(want), _norm(have)
    if not wish:  # an adapter that changes nothing loses nothing
        return Loss(1.0, 0.0)
    product = cast(float, (want * have).sum().item())
    cosine = product / (wish * length) if length else 0.0
    return Loss(cosine, _norm(have - want) / wish)


def _norm(matrix: mx.array) -> float:
    return cast(float, mx.linalg.norm(matrix).item())
