"""Lending the layers other weights and dropout keys for the length of one forward pass.

Function transformations (gradient, compile, recomputation) trace their arguments. Lending the
traced arrays to the modules lets any model's own forward pass be traced, and putting the modules'
own back afterwards leaves no tracer behind.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import mlx.core as mx

from mlx_yoda.lora.layer import LoRALinear

Layers = Mapping[str, LoRALinear]  # path -> layer
Adapter = dict[str, dict[str, mx.array]]  # path -> {"lora_A": (r, in), "lora_B": (out, r)}
Keys = dict[str, mx.array]  # path -> PRNG key (2,); a layer without one does not drop anything


def adapter_of(layers: Layers) -> Adapter:
    """The layers' weights as one tree: what is trained, saved and loaded."""
    return {
        path: {"lora_A": layer.lora_A, "lora_B": layer.lora_B} for path, layer in layers.items()
    }


def flatten(adapter: Adapter) -> list[mx.array]:
    """A and B of every path in turn."""
    return [weights[name] for weights in adapter.values() for name in ("lora_A", "lora_B")]


def unflatten(paths: Iterable[str], weights: Sequence[mx.array]) -> Adapter:
    """The tree that `flatten` took apart."""
    pairs = zip(weights[::2], weights[1::2], strict=True)
    return {path: {"lora_A": a, "lora_B": b} for path, (a, b) in zip(paths, pairs, strict=True)}


def install(layers: Layers, adapter: Adapter) -> None:
    """Give the layers these weights."""
    for path, layer in layers.items():
        layer.lora_A = adapter[path]["lora_A"]
        layer.lora_B = adapter[path]["lora_B"]


def dropout_keys(layers: Layers, key: mx.array) -> Keys:
    """A key of its own for every layer that drops, from one key `(2,)`."""
    dropping = [path for path, layer in layers.items() if layer.dropout > 0]
    return dict(zip(dropping, mx.random.split(key, max(1, len(dropping))), strict=False))


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
