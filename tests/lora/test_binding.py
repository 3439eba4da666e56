"""What the layers get for one forward pass, a dropout key of its own for each, and give back."""

from itertools import combinations
from types import SimpleNamespace

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlx_yoda.lora.binding import adapter_of, dropout_keys, lent
from mlx_yoda.lora.layer import LoRALinear


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


def test_what_was_lent_is_given_back():
    """Also where the pass fails, and where one is within another, as the last layer's is."""
    base, key = nn.Linear(8, 6), mx.random.key(0)
    layer = LoRALinear(base, r=2, lora_alpha=4, dropout=0.1, use_rslora=False, key=key)
    layers, own = {"a": layer}, layer.lora_A
    outer, inner = mx.random.split(key, 2)
    other = {"a": {"lora_A": own + 1, "lora_B": layer.lora_B}}
    with pytest.raises(ZeroDivisionError), lent(layers, other, {"a": outer}):
        with lent(layers, adapter_of(layers), {"a": inner}):
            assert layer.dropout_key is inner
        assert layer.dropout_key is outer
        assert layer.lora_A is other["a"]["lora_A"]
        raise ZeroDivisionError
    assert layer.dropout_key is None
    assert layer.lora_A is own
