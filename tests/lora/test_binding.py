"""What the layers get for one forward pass: a dropout key of its own for each."""

from itertools import combinations
from types import SimpleNamespace

import mlx.core as mx

from mlx_yoda.lora.binding import dropout_keys


def test_no_two_layers_share_a_dropout_key():
    layers = {f"layers.{i}": SimpleNamespace(dropout=0.1 * (i != 2)) for i in range(5)}
    tokens = mx.arange(7)
    keys = dropout_keys(layers, mx.random.key(3), tokens)
    assert keys.keys() == layers.keys() - {"layers.2"}  # which drops nothing
    for one, other in combinations(keys.values(), 2):
        same = {tuple(key) for key in one.tolist()} & {tuple(key) for key in other.tolist()}
        assert not same
    again = dropout_keys(layers, mx.random.key(4), tokens)
    assert not any(mx.array_equal(keys[path], again[path]) for path in keys)
