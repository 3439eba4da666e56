"""Phi-3's forward pass over the ragged layout, around mlx-lm's modules.

The weights, norms and rotary embedding are mlx-lm's (`mlx_lm.models.phi3`); what is here is the
way through them. Each of a block's four linear layers is called as `linear(module, source, pre)`
and means `module(pre(source))`: the caller may save `source` alone for the backward pass and
make the input again.
"""

from collections.abc import Callable
from functools import partial

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.phi3 import Model as Phi3

from mlx_yoda.model.ragged import Layout, fold, unfold

__all__ = ["Phi3", "attend", "block", "embed", "feed_forward"]

Pre = Callable[[mx.array], mx.array]
Linear = Callable[[nn.Module, mx.array, Pre], mx.array]


def plain(module: nn.Module, source: mx.array, pre: Pre) -> mx.array:
    """The obvious way to call a linear layer."""
    return module(pre(source))


def embed(model: Phi3, tokens: mx.array) -> mx.array:
    """What the first layer takes, `(N,)` to `(N, D)` in the base's dtype.

    An embedding packed in mxfp4 or its like, whose scales are bytes, knows no dtype and gives
    bfloat16; with norms in float16 all that follows would be float32.
    """
    return model.model.embed_tokens(tokens).astype(model.model.norm.weight.dtype)


def block(
    layer: nn.Module,
    h: mx.array,
    layout: Layout,
    linear: Linear = plain,
    at: mx.array | None = None,
) -> mx.array:
    """One decoder layer, `(N, D)` to `(N, D)`, or to `(M, D)` if only M tokens are looked at.

    Args:
        layer: mlx-lm's decoder layer.
        h: `(N, D)`.
        layout: of the tokens.
        linear: how to call a linear layer.
        at: `(M,)`, the tokens whose output is wanted; the others are but attended to.
    """
    return feed_forward(layer, attend(layer, h, layout, linear, at), linear)


def attend(
    layer: nn.Module, h: mx.array, layout: Layout, linear: Linear, at: mx.array | None = None
) -> mx.array:
    """The attention half of a layer with its residual, `(N, D)` to `(N, D)` or `(M, D)`."""
    attn = layer.self_attn
    qkv = linear(attn.qkv_proj, h, layer.input_layernorm)  # (N, (H + 2 Hkv) d)
    update = linear(attn.o_proj, qkv, partial(attention, attn, layout, at))  # (M, D)
    return (h if at is None else mx.take(h, at, axis=0)) + update


def feed_forward(layer: nn.Module, h: mx.array, linear: Linear) -> mx.array:
    """The MLP half of a layer with its residual, `(N, D)` to `(N, D)`."""
    gate_up = linear(layer.mlp.gate_up_proj, h, layer.post_attention_layernorm)  # (N, 2 F)
    return h + linear(layer.mlp.down_proj, gate_up, swiglu)  # (N, D)


def attention(attn: nn.Module, layout: Layout, at: mx.array | None, qkv: mx.array) -> mx.array:
    """Rotary causal attention, `(N, (H + 2 Hkv) d)` to `(N, H d)`, or `(M, H d)` of `at`."""
    rows = unfold(qkv, layout)  # (B, T, (H + 2 Hkv) d)
    n_q, n_kv, d = attn.n_heads, attn.n_kv_heads, attn.head_dim
    queries = attn.rope(_heads(rows[..., : n_q * d], n_q))  # (B, H, T, d)
    keys = attn.rope(_heads(rows[..., n_q * d : (n_q + n_kv) * d], n_kv))
    values = _heads(rows[..., (n_q + n_kv) * d :], n_kv)
    out = mx.fast.scaled_dot_product_attention(
        queries, keys, values, scale=attn.scale, mask=layout.mask()
    )
    out = out.transpose(0, 2, 1, 3)  # (B, T, H, d)
    tokens = fold(out.reshape(*out.shape[:2], -1), layout)  # (N, H d)
    return tokens if at is None else mx.take(tokens, at, axis=0)


def swiglu(gate_up: mx.array) -> mx.array:
    """`silu(gate) · up`, `(N, 2 F)` to `(N, F)` (Shazeer, arXiv 2002.05202)."""
    # Slices, not mx.split: split together with mx.depends fails under mx.compile.
    half = gate_up.shape[-1] // 2
    gate = gate_up[..., :half]
    return gate * mx.sigmoid(gate) * gate_up[..., half:]


def _heads(x: mx.array, n: int) -> mx.array:
    """`(B, T, n d)` to `(B, n, T, d)`."""
    return x.reshape(*x.shape[:2], n, -1).transpose(0, 2, 1, 3)
