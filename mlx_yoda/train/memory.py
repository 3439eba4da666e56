"""The memory plan: what a training step will need, before anything is loaded.

A step's peak is what stays (weights, adapter, optimizer), what the forward pass keeps for the
backward pass, and the largest of three passing demands: the loss over a chunk of positions, an
MLP's backward pass, an attention's; or, where rows are short, the optimizer's update. The widths
are the architecture's; how many arrays of each width are alive at once was fitted to MLX's own
count of its peak over widths, depths, batch sizes and lengths on the CPU backend
(`python -m benchmarks.memory` prints plan beside measurement; to be confirmed on Apple Silicon,
where fused attention keeps no probabilities).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mlx_yoda.data.shapes import Shape
from mlx_yoda.model.sizes import Sizes
from mlx_yoda.train.loss import CHUNK
from mlx_yoda.train.recompute import Keep

# Arrays alive at once, fitted.
_KEPT_ARRAYS, _KEPT_PROBABILITIES = 1.13, 1.02  # by automatic differentiation, of every width
_LOGITS, _CHUNKS = 2.92, 2.75  # float32; MLX allocates ahead, so more than one chunk is alive
_LOSS_HIDDEN = 34.08
_MLP_WIDE, _MLP_DROPPED, _MLP_HIDDEN = 12.37, 2.22, 1.86
_PROBABILITIES, _ATTENTION_HIDDEN = 2.91, 28.27
_LAYER_AGAIN, _MLP_AGAIN = 3.11, 2.56


@dataclass(frozen=True)
class Demand:
    """Bytes that a training step needs, by purpose.

    Attributes:
        weights: the frozen base.
        adapter: A and B, their gradients, and AdamW's moments.
        activations: kept from the forward for the backward pass.
        loss: alive while the loss and its gradient are computed.
        layer: alive in the backward pass of one layer.
    """

    weights: int
    adapter: int
    activations: int
    loss: int
    layer: int

    @property
    def working(self) -> int:
        """What is alive for a moment: the loss, or one layer's backward pass.

        Or the update, if the activations that are gone by then were less: it makes the adapter,
        its gradients and its moments anew before it lets go of the old ones.
        """
        return max(self.loss, self.layer, self.adapter - self.activations)

    @property
    def peak(self) -> int:
        """What MLX's allocator will count at most (`mx.get_peak_memory`)."""
        return self.weights + self.adapter + self.activations + self.working

    @property
    def cache(self) -> int:
        """Freed buffers that the allocator may hold on to (`mx.set_cache_limit`)."""
        return max(self.loss, self.layer)

    @property
    def footprint(self) -> int:
        """What the system will see at most: the peak and the allocator's cache."""
        return self.peak + self.cache


def demand(
    sizes: Sizes,
    shape: Shape,
    keep: Sequence[Keep],
    *,
    dropout: bool,
    fused_attention: bool = False,
) -> Demand:
    """Predict the peak of a step.

    Args:
        sizes: of the model and its adapter.
        shape: of the largest micro-batch.
        keep: what each layer keeps.
        dropout: whether the LoRA branch drops.
        fused_attention: whether the backend's attention keeps no `(B, H, T, T)` probabilities
            behind the plain causal mask; behind a sliding window it keeps them anyway.
    """
    fused = fused_attention and not (sizes.window and shape.length > sizes.window)
    probabilities = 0 if fused else shape.rows * sizes.heads * shape.length**2 * sizes.item
    adapted = keep[sizes.first :]  # nothing is kept where no gradient goes
    kept = sum(_kept(sizes, shape, level, probabilities, shape.tokens) for level in adapted[:-1])
    kept += _kept(sizes, shape, adapted[-1], probabilities, shape.targets)
    return Demand(
        weights=sizes.weights,
        adapter=sizes.adapter * 4 * 4,
        activations=int(kept),
        loss=int(_loss(sizes, shape)),
        layer=int(_layer(sizes, shape, max(adapted), probabilities, dropout)),
    )


def _kept(sizes: Sizes, shape: Shape, keep: Keep, probabilities: int, after: int) -> float:
    """What a layer keeps that `after` of the tokens pass whole; of the others only attention."""
    d, q, f = sizes.hidden, sizes.qkv, sizes.intermediate
    token, past = shape.tokens * sizes.item, after * sizes.item
    match keep:
        case Keep.EVERYTHING:
            arrays = token * (2 * d + q) + past * (3 * d + 3 * f)
            outputs = token * q + past * (2 * d + 2 * f)
            probable = _KEPT_PROBABILITIES * probabilities
            return _KEPT_ARRAYS * arrays + probable + sizes.dora * outputs
        case Keep.SOURCES:
            outputs = token * q + past * (2 * d + 2 * f)
            return token * (d + q) + past * (d + 2 * f) + sizes.dora * outputs
        case Keep.ATTENTION:
            return token * (d + q) + past * d + sizes.dora * (token * q + past * d)
        case Keep.INPUT:
            return token * d


def _loss(sizes: Sizes, shape: Shape) -> float:
    logits = _LOGITS * min(_CHUNKS * CHUNK, shape.targets) * sizes.vocabulary * 4
    return logits + _LOSS_HIDDEN * shape.targets * sizes.item * sizes.hidden


def _layer(sizes: Sizes, shape: Shape, keep: Keep, probabilities: int, dropout: bool) -> float:
    """The larger demand of an MLP's backward pass and an attention's."""
    d, q, f = sizes.hidden, sizes.qkv, sizes.intermediate
    token = shape.tokens * sizes.item
    mlp = (_MLP_WIDE + _MLP_DROPPED * dropout) * token * f + _MLP_HIDDEN * token * d
    attention = _PROBABILITIES * probabilities + _ATTENTION_HIDDEN * token * d
    if keep is Keep.INPUT:
        mlp += sizes.dora * token * (2 * d + q + 2 * f)
        mlp += _LAYER_AGAIN * token * (d + q + 2 * f)
        attention += _LAYER_AGAIN * token * (d + q)
    elif keep is Keep.ATTENTION:
        mlp += _MLP_AGAIN * token * 2 * f
    return max(mlp, attention)
