"""Counting a model's layers and parameters."""

import json

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx_lm.models import phi3

from mlx_yoda.config.schema import LoraConfig
from mlx_yoda.lora.inject import inject
from mlx_yoda.model.inventory import count_parameters, in_out, linear_modules

SIZES = {
    "model_type": "phi3",
    "hidden_size": 64,
    "num_hidden_layers": 11,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 128,
}
# A layer: qkv 64·(64+32+32), o 64·64, gate_up 64·192, down 96·64, two norms of 64.
LAYER = 64 * 128 + 64 * 64 + 64 * 192 + 96 * 64 + 2 * 64
TOTAL = 11 * LAYER + 2 * 128 * 64 + 64


def phi3_model(**sizes):
    model = phi3.Model(phi3.ModelArgs.from_dict(SIZES | sizes))
    model.freeze()
    return model


def test_linear_layers_are_listed_in_the_models_order():
    layers = linear_modules(phi3_model())
    assert next(iter(layers)) == "lm_head"
    found = [path for path in layers if path.endswith("qkv_proj")]
    assert found == [f"model.layers.{i}.self_attn.qkv_proj" for i in range(11)]
    assert len(layers) == 4 * 11 + 1


def test_widths_are_those_of_the_matrix_even_when_it_is_packed():
    model = phi3_model()
    wanted = {path: in_out(layer) for path, layer in linear_modules(model).items()}
    assert wanted["model.layers.0.mlp.down_proj"] == (96, 64)
    for bits in (3, 4, 8):
        model = phi3_model()
        nn.quantize(model, 32, bits)
        layers = linear_modules(model)
        assert isinstance(layers["lm_head"], nn.QuantizedLinear)
        assert {path: in_out(layer) for path, layer in layers.items()} == wanted


@pytest.mark.parametrize("bits", [None, 3, 4, 8])
def test_parameters_count_as_what_they_stand_for(bits):
    model = phi3_model()
    if bits:
        nn.quantize(model, 32, bits)
    assert count_parameters(model) == (0, TOTAL)


@pytest.mark.parametrize("bits", [None, 4])
def test_an_adapter_adds_its_parameters_and_changes_no_name(bits):
    model = phi3_model()
    if bits:
        nn.quantize(model, 32, bits)
    names = list(linear_modules(model))
    inject(model, LoraConfig(r=3, target_modules=["o_proj"]), mx.random.key(0))
    adapter = 11 * 3 * (64 + 64)
    assert list(linear_modules(model)) == names
    assert count_parameters(model) == (adapter, TOTAL + adapter)


def test_phi3_mini_has_the_published_number_of_parameters(shared):
    """3.83 B, of which r 8 on the four targets trains 12,582,912; no array is ever computed."""
    config = json.loads((shared / "data/phi-3-mini-4k-instruct/config.json").read_text())
    model = phi3.Model(phi3.ModelArgs.from_dict(config))
    model.freeze()
    inject(model, LoraConfig(), mx.random.key(0))
    assert count_parameters(model) == (12_582_912, 3_821_079_552 + 12_582_912)
