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
    norm = mx.linalg.norm(want)
    cosine = (want * have).sum() / (norm * mx.linalg.norm(have))
    error = mx.linalg.norm(have - want) / norm
    return Loss(cast(float, cosine.item()), cast(float, error.item()))
