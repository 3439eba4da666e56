"""Lending the layers other weights and dropout keys for the length of one forward pass.

Function transformations (gradient, compile, recomputation) trace their arguments. Lending the
traced arrays to the modules lets any model's own forward pass be traced, and putting the modules'
own back afterwards leaves no tracer behind.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import mlx.core as mx

from mlx_yoda.lora.dropout import token_keys
from mlx_yoda.lora.layer import LoRALinear

Layers = Mapping[str, LoRALinear]  # path -> layer
Adapter = dict[str, dict[str, mx.array]]  # path -> {"lora_A": (r, in), "lora_B": (out, r), …}
Keys = dict[str, mx.array]  # path -> PRNG keys (..., 2); a layer without any drops nothing


def adapter_of(layers: Layers) -> Adapter:
    """The layers' weights as one tree: what is trained, saved and loaded."""
    return {
        path: {name: layer[name] for name in layer.weight_names} for path, layer in layers.items()
    }


def flatten(adapter: Adapter) -> list[mx.array]:
    """A, B and what else trains of every path in turn."""
    return [weight for weights in adapter.values() for weight in weights.values()]


def unflatten(like: Adapter, weights: Sequence[mx.array]) -> Adapter:
    """A tree as `flatten` took apart, `like` that one."""
    rest = iter(weights)
    return {path: {name: next(rest) for name in own} for path, own in like.items()}


def install(layers: Layers, adapter: Adapter) -> None:
    """Give the layers these weights."""
    for path, layer in layers.items():
        layer.settle(False)
        for name in layer.weight_names:
            layer[name] = adapter[path][name]


def dropout_keys(layers: Layers, key: mx.array, tokens: mx.array) -> Keys:
    """Keys `(..., 2)` for every layer that drops.

    Args:
        layers: the LoRA layers.
        key: of the optimizer step, `(2,)`.
        tokens: for each token of the activations `(..., D)` its number in the step, `(...)`.
    """
    dropping = [path for path, layer in layers.items() if layer.dropout > 0]
    keys = mx.random.split(key, max(1, len(dropping)))
    return {path: token_keys(keys[i], tokens) for i, path in enumerate(dropping)}


def keys_of(layers: Layers) -> Keys:
    """The keys that the layers have at present."""
    keys = {path: layer.dropout_key for path, layer in layers.items()}
    return {path: key for path, key in keys.items() if key is not None}


@contextmanager
def lent(layers: Layers, adapter: Adapter, keys: Keys) -> Iterator[None]:
    """Run the layers on these weights and keys, then put their own back."""
    own, own_keys = adapter_of(layers), keys_of(layers)
    try:
        install(layers, adapter)
        for path, layer in layers.items():
            layer._dropout_key = keys.get(path)
        yield
    finally:
        install(layers, own)
        for path, layer in layers.items():
            layer._dropout_key = own_keys.get(path)
