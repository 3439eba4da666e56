"""What a decoder layer keeps for its backward pass, and what it makes again."""

from collections.abc import Callable
from enum import IntEnum
from functools import partial
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn

from mlx_yoda.errors import UserError
from mlx_yoda.lora.binding import (
    Adapter,
    Keys,
    adapter_of,
    flatten,
    keys_of,
    lent,
    unflatten,
)
from mlx_yoda.lora.inject import lora_layers
from mlx_yoda.lora.layer import LoRALinear
from mlx_yoda.lora.product import Pre, plain_product
from mlx_yoda.model import phi3
from mlx_yoda.model.ragged import Layout

Block = Callable[..., mx.array]  # (layer, h, layout, at=None)


class Keep(IntEnum):
    """What a layer keeps, from the most memory to the least."""

    EVERYTHING = 0
    """The input of every linear layer and of everything between them."""
    SOURCES = 1
    """h, qkv, h', gate_up: norms, SwiGLU, rotary and attention are made again."""
    ATTENTION = 2
    """h, qkv, h': the MLP is made again as well."""
    INPUT = 3
    """h alone: the whole layer is made again."""


def linear(module: nn.Module, source: mx.array, pre: Pre, keep: Keep) -> mx.array:
    """`module(pre(source))`, saving source alone unless everything is kept."""
    inputs = (pre(source), None) if keep is Keep.EVERYTHING else (source, pre)
    if isinstance(module, LoRALinear):
        return module.product(*inputs)
    return plain_product(module, *inputs)


def block(keep: Keep) -> Block:
    """How to call a decoder layer, as `phi3.block`, so that it keeps so much."""
    once = partial(linear, keep=keep)
    # What is made again is made again once: nothing within it is made a third time.
    again = partial(linear, keep=Keep.EVERYTHING)

    def call(layer: nn.Module, h: mx.array, layout: Layout, at: mx.array | None = None) -> mx.array:
        if keep is Keep.INPUT:
            return recomputed(layer, lambda h: phi3.block(layer, h, layout, again, at), h)
        h = phi3.attend(layer, h, layout, once, at)
        if keep is Keep.ATTENTION:
            return recomputed(layer.mlp, lambda h: phi3.feed_forward(layer, h, again), h)
        return phi3.feed_forward(layer, h, once)

    return call


def recomputed_layer(layer: nn.Module) -> nn.Module:
    """What stands in for a decoder layer of any architecture, called the same, and keeps h alone.

    It is called as mlx-lm does, `layer(h, mask, cache, …)`; what comes after h must carry no
    gradient, as masks do.
    """
    return cast(nn.Module, _Recomputed(layer))


class _Recomputed:
    def __init__(self, layer: nn.Module) -> None:
        self._layer = layer

    def __getattr__(self, name: str) -> Any:  # models ask their layers which kind they are
        return getattr(self._layer, name)

    def __call__(self, h: mx.array, *args: Any, **kwargs: Any) -> mx.array:
        def call(h: mx.array) -> mx.array:
            out = self._layer(h, *args, **kwargs)
            if not isinstance(out, mx.array):
                raise UserError(
                    "train.gradient_checkpointing: the layers of this architecture give more than "
                    "one array, so they cannot be recomputed; set it to false."
                )
            return out

        return recomputed(self._layer, call, h)


def recomputed(
    module: nn.Module, function: Callable[[mx.array], mx.array], h: mx.array
) -> mx.array:
    """Call `function(h)` and keep h alone; the backward pass calls it again.

    This is gradient checkpointing (Chen et al., arXiv 1604.06174) with two differences from
    `mx.checkpoint`: it waits for the gradient from above before it starts, so that one layer is
    made again at a time whatever the order of evaluation, and dropout keys lie in the layers, so
    that it draws the same masks.

    Args:
        module: holds the LoRA layers that function uses; gradients flow to them and to h.
        function: from `(N, D)` to `(N, D)` or `(M, D)`.
        h: `(N, D)`.
    """
    layers = lora_layers(module)

    def run(h: mx.array, adapter: Adapter, keys: Keys) -> mx.array:
        with lent(layers, adapter, keys):
            return function(h)

    def backward(
        primals: tuple[mx.array, Adapter, Keys], dy: mx.array, _: mx.array
    ) -> tuple[mx.array, Adapter, Keys]:
        _, adapter, keys = primals
        weights: list[mx.array] = flatten(adapter)
        # Nothing is made again before its turn.
        waiting = mx.depends([primals[0], *weights, *keys.values()], [dy])
        saved = cast(list[mx.array], waiting)
        drawn = dict(zip(keys, saved[1 + len(weights) :], strict=True))
        gradients = mx.vjp(
            lambda h, *weights: run(h, unflatten(adapter, weights), drawn),
            saved[: 1 + len(weights)],
            [dy],
        )[1]
        no_gradient = {path: mx.zeros_like(key) for path, key in keys.items()}
        return gradients[0], unflatten(adapter, gradients[1:]), no_gradient

    call = mx.custom_function(run)
    call.vjp(backward)
    return cast(mx.array, call(h, adapter_of(layers), keys_of(layers)))
