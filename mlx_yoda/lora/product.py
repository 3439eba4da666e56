"""The product of a LoRA layer, forward and backward, with one saved activation.

Automatic differentiation would keep the layer's input, its dropped-out copy, the mask and
whatever the input was made from (a norm's output, SwiGLU's, attention's). Here the layer takes
the *source* of its input and a function `pre` that makes the input from it; only the source is
saved, and the backward pass makes the input again. This is the middle way between keeping
everything and checkpointing whole layers: what is recomputed is cheap, the matrix products are
not done twice.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import mlx.core as mx
import mlx.nn as nn

from mlx_yoda.lora.dropout import keep_mask

if TYPE_CHECKING:
    from mlx_yoda.lora.layer import LoRALinear

Pre = Callable[[mx.array], mx.array]


def lora_product(layer: "LoRALinear", source: mx.array, pre: Pre | None = None) -> mx.array:
    """Compute `W x + scale · B A drop(x)` with `x = pre(source)`.

    Args:
        layer: the layer; its masters A `(r, in)` and B `(out, r)` are float32, the branch is
            computed in x's dtype. Gradients flow to A, B and source, none to W.
        source: `(..., any)`, the only activation kept for the backward pass.
        pre: makes x `(..., in)` from source; the identity if None. It may capture frozen arrays
            but nothing that is differentiated.

    Returns:
        `(..., out)` in x's dtype.
    """
    key, p = layer.dropout_key, layer.dropout
    masked = key is not None and p > 0

    def dropped(x: mx.array, key: mx.array) -> tuple[mx.array, mx.array | None]:
        mask = keep_mask(key, x.shape, p, x.dtype) if masked else None
        return (x if mask is None else x * mask), mask

    def product(source: mx.array, a: mx.array, b: mx.array, key: mx.array) -> mx.array:
        x = source if pre is None else pre(source)
        branch = dropped(x, key)[0] @ a.astype(x.dtype).T  # (..., r)
        return layer.base(x) + layer.scale * (branch @ b.astype(x.dtype).T)

    def backward(
        primals: tuple[mx.array, ...], dy: mx.array, _: mx.array
    ) -> tuple[mx.array, mx.array, mx.array, mx.array]:
        source, a, b, key = primals
        # Waiting for dy keeps the recomputation of other layers from starting early.
        source, key = mx.depends([source, key], [dy])
        dy = dy.astype(source.dtype)
        x = source if pre is None else pre(source)
        z, mask = dropped(x, key)
        g = layer.scale * (dy @ b.astype(x.dtype))  # (..., r)
        da = _outer(g, z)  # (r, in)
        db = layer.scale * _outer(dy, z @ a.astype(x.dtype).T)  # (out, r)
        dz = g @ a.astype(x.dtype)
        dx = through_base(layer.base, dy) + (dz if mask is None else dz * mask)
        # The gradient leaves only when dA and dB are done: whatever order the graph is evaluated
        # in, the activations recomputed here are gone before the next layer's are made.
        (dx,) = mx.depends([dx], [da, db])
        if pre is not None:
            dx = mx.vjp(pre, [source], [dx])[1][0]
        return dx, da, db, mx.zeros_like(key)

    apply = mx.custom_function(product)
    apply.vjp(backward)
    inert = mx.stop_gradient(key) if key is not None else mx.zeros((2,), mx.uint32)
    return cast(mx.array, apply(source, layer.lora_A, layer.lora_B, inert))


def plain_product(linear: nn.Module, source: mx.array, pre: Pre | None = None) -> mx.array:
    """`W pre(source)` of a frozen layer without LoRA, saving source alone."""

    def product(source: mx.array) -> mx.array:
        return linear(source if pre is None else pre(source))

    def backward(source: mx.array, dy: mx.array, _: mx.array) -> mx.array:
        dx = through_base(linear, dy.astype(source.dtype))
        if pre is None:
            return dx
        (source,) = mx.depends([source], [dx])
        return mx.vjp(pre, [source], [dx])[1][0]

    apply = mx.custom_function(product)
    apply.vjp(backward)
    return cast(mx.array, apply(source))


def through_base(base: nn.Module, dy: mx.array) -> mx.array:
    """The gradient `dy W` `(..., in)` of a frozen layer's input, for dy `(..., out)`.

    The layer is linear, or an embedding used as one (a tied head), quantised or not.
    """
    if isinstance(base, nn.QuantizedLinear | nn.QuantizedEmbedding):
        return mx.quantized_matmul(
            dy,
            base.weight,
            scales=base.scales,
            biases=base.get("biases"),
            transpose=False,
            group_size=base.group_size,
            bits=base.bits,
            mode=base.mode,
        )
    return dy @ base.weight


def _outer(left: mx.array, right: mx.array) -> mx.array:
    """`left^T right` summed over all but the last axis, `(m, n)` float32."""
    left = left.reshape(-1, left.shape[-1])
    right = right.reshape(-1, right.shape[-1])
    return (left.T @ right).astype(mx.float32)
