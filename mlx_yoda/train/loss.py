"""Cross-entropy over the vocabulary without ever holding all logits.

Only positions that carry loss are projected, a chunk of them at a time, and the gradient for the
hidden states is made in the same pass, so that a chunk's logits die before the next are born. It
is the idea of Liger Kernel's fused linear cross-entropy (arXiv 2410.10989), for a frozen head.
"""

from collections.abc import Callable
from typing import cast

import mlx.core as mx

Project = Callable[[mx.array], mx.array]  # (m, D) -> (m, V)

CHUNK = 64  # positions a chunk; 64 to 256 take the same time, and the fewest the least memory


def summed_cross_entropy(
    hidden: mx.array,
    targets: mx.array,
    weights: mx.array,
    project: Project,
    back_project: Project,
    chunk: int = CHUNK,
) -> mx.array:
    """The sum of `-log p(target)` over positions, each times its weight.

    Args:
        hidden: `(M, D)` final hidden states of the positions that carry loss.
        targets: `(M,)` int32 token ids.
        weights: `(M,)` float32, 1 for a target, 0 for padding.
        project: the head, `(m, D)` to logits `(m, V)`.
        back_project: the head's gradient, `(m, V)` to `(m, D)`.
        chunk: positions whose logits are alive at once.

    Returns:
        Scalar float32 sum; the caller divides by the number of targets.
    """

    @mx.custom_function
    def fused(hidden: mx.array) -> list[mx.array]:
        loss = mx.zeros((), mx.float32)
        gradients: list[mx.array] = []
        for start in range(0, hidden.shape[0], chunk):
            rows = slice(start, start + chunk)
            [part] = mx.depends([hidden[rows]], [loss, *gradients[-1:]])
            part_loss, gradient = _chunk(part, targets[rows], weights[rows], project, back_project)
            loss = loss + part_loss
            gradients.append(gradient)
        return [loss, mx.concatenate(gradients)]

    @fused.vjp
    def backward(_: mx.array, cotangents: list[mx.array], outputs: list[mx.array]) -> mx.array:
        return cotangents[0].astype(outputs[1].dtype) * outputs[1]

    return cast(list[mx.array], fused(hidden))[0]


def _chunk(
    hidden: mx.array,
    targets: mx.array,
    weights: mx.array,
    project: Project,
    back_project: Project,
) -> tuple[mx.array, mx.array]:
    """Loss sum and gradient `(m, D)` of one chunk `(m, D)`."""
    logits = project(hidden).astype(mx.float32)  # (m, V)
    at = targets[:, None]
    picked = mx.take_along_axis(logits, at, axis=-1)
    # One exponential an entry serves the loss and its gradient: the most probable token's
    # probability is 1 / sum exp(logit - highest), never too small for its logarithm.
    probability = mx.softmax(logits, axis=-1)
    highest = logits.max(axis=-1, keepdims=True)
    log_z = highest - mx.log(probability.max(axis=-1, keepdims=True))
    loss = ((log_z - picked)[:, 0] * weights).sum()
    at_target = mx.take_along_axis(probability, at, axis=-1)
    gradient = mx.put_along_axis(probability, at, at_target - 1, axis=-1)
    return loss, back_project(gradient.astype(hidden.dtype)) * weights[:, None].astype(hidden.dtype)
