"""Counting a model's layers and parameters."""

import json

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx_lm.models import phi3

from mlx_yoda.config.schema import LoraConfig
from mlx_yoda.lora.inject import inject
from mlx_yoda.model.inventory import count_parameters

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


@pytest.mark.parametrize("bits", [None, 3, 4, 8])
def test_parameters_count_as_what_they_stand_for(bits):
    model = phi3_model()
    if bits:
        nn.quantize(model, 32, bits)
    assert count_parameters(model) == (0, TOTAL)


@pytest.mark.parametrize("bits", [None, 4])
def test_an_adapter_adds_its_parameters(bits):
    model = phi3_model()
    if bits:
        nn.quantize(model, 32, bits)
    inject(model, LoraConfig(r=3, target_modules=["o_proj"]), mx.random.key(0))
    adapter = 11 * 3 * (64 + 64)
    assert count_parameters(model) == (adapter, TOTAL + adapter)


def test_phi3_mini_has_the_published_number_of_parameters(shared):
    """3.83 B, of which r 8 on the four targets trains 12,582,912; no array is ever computed."""
    config = json.loads((shared / "data/phi-3-mini-4k-instruct/config.json").read_text())
    model = phi3.Model(phi3.ModelArgs.from_dict(config))
    model.freeze()
    inject(model, LoraConfig(), mx.random.key(0))
    assert count_parameters(model) == (12_582_912, 3_821_079_552 + 12_582_912)
