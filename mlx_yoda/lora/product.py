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

    def drawn(key: mx.array, shape: tuple[int, ...], dtype: mx.Dtype) -> mx.array | None:
        return keep_mask(key, shape, p, dtype) if masked else None

    def product(source: mx.array, a: mx.array, b: mx.array, key: mx.array) -> mx.array:
        x = source if pre is None else pre(source)
        mask = drawn(key, x.shape, x.dtype)
        branch = (x if mask is None else x * mask) @ a.astype(x.dtype).T  # (..., r)
        return layer.base(x) + layer.scale * (branch @ b.astype(x.dtype).T)

    def backward(
        primals: tuple[mx.array, ...], dy: mx.array, _: mx.array
    ) -> tuple[mx.array, mx.array, mx.array, mx.array]:
        source, a, b, key = primals
        # Waiting for dy keeps the recomputation of other layers from starting early.
        source, key = mx.depends([source, key], [dy])
        dy = dy.astype(source.dtype)
        a, b = a.astype(dy.dtype), b.astype(dy.dtype)
        mask = drawn(key, (*dy.shape[:-1], a.shape[-1]), dy.dtype)
        g = layer.scale * (dy @ b)  # (..., r)
        dz = g @ a
        dx = through_base(layer.base, dy) + (dz if mask is None else dz * mask)
        x, dsource = made_again(pre, source, dx)
        z = x if mask is None else x * mask
        da = _outer(g, z)  # (r, in)
        db = layer.scale * _outer(dy, z @ a.T)  # (out, r)
        # The gradient leaves only when dA and dB are done: whatever order the graph is evaluated
        # in, the activations recomputed here are gone before the next layer's are made.
        (dsource,) = mx.depends([dsource], [da, db])
        return dsource, da, db, mx.zeros_like(key)

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
        (source,) = mx.depends([source], [dx])
        return made_again(pre, source, dx)[1]

    apply = mx.custom_function(product)
    apply.vjp(backward)
    return cast(mx.array, apply(source))


def made_again(pre: Pre | None, source: mx.array, dx: mx.array) -> tuple[mx.array, mx.array]:
    """`x = pre(source)` and the gradient of source for x's gradient dx, with one call of pre."""
    if pre is None:
        return source, dx
    (x,), (dsource,) = mx.vjp(pre, [source], [dx])
    return x, dsource


def through_base(base: nn.Module, dy: mx.array) -> mx.array:
    """The gradient `dy W` `(..., in)` of a frozen layer's input, for dy `(..., out)`.

    The layer is linear, or an embedding used as one (a tied head), quantised or not.
    """
    return frozen_product(base, dy, transpose=False)


def frozen_product(base: nn.Module, x: mx.array, *, transpose: bool) -> mx.array:
    """`x Wᵀ` if transpose, else `x W`, without the bias, for W `(out, in)`, quantised or not."""
    if isinstance(base, nn.QuantizedLinear | nn.QuantizedEmbedding):
        return mx.quantized_matmul(
            x,
            base.weight,
            scales=base.scales,
            biases=base.get("biases"),
            transpose=transpose,
            group_size=base.group_size,
            bits=base.bits,
            mode=base.mode,
        )
    return x @ (base.weight.T if transpose else base.weight)


def _outer(left: mx.array, right: mx.array) -> mx.array:
    """`left^T right` summed over all but the last axis, `(m, n)` float32."""
    left = left.reshape(-1, left.shape[-1])
    right = right.reshape(-1, right.shape[-1])
    return (left.T @ right).astype(mx.float32)
