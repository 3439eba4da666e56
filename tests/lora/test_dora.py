"""DoRA against its formula and against PEFT: outputs, gradients, what is saved."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from mlx_yoda.adapters.peft import load_adapter
from mlx_yoda.config.quantization import packing
from mlx_yoda.config.schema import Quantization
from mlx_yoda.generation import attach
from mlx_yoda.lora.binding import adapter_of, install
from mlx_yoda.lora.dora import DoRALinear
from mlx_yoda.lora.inject import remove
from mlx_yoda.lora.layer import plain_weight

N_IN, N_OUT, R = 64, 48, 4
TOKENS = np.array([[5, 17, 40, 3, 99, 8, 61, 23, 150, 77, 12]])
ALL = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]


def make_layer(bits=None, dtype=mx.float32, bias=False):
    linear = nn.Linear(N_IN, N_OUT, bias=bias)
    linear.weight = mx.random.normal((N_OUT, N_IN), key=mx.random.key(3)).astype(dtype)
    if bias:
        linear.bias = mx.random.normal((N_OUT,), key=mx.random.key(8)).astype(dtype)
    base = linear if bits is None else linear.to_quantized(**_packing(bits))
    return DoRALinear(base, r=R, lora_alpha=8, dropout=0.0, use_rslora=False, key=mx.random.key(1))


def _packing(bits):
    wanted = Quantization(mode=bits) if isinstance(bits, str) else Quantization(bits, 32)
    return packing(wanted)._asdict()


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("bits", [None, 4, 8, "mxfp4", "mxfp8", "nvfp4"])
def test_a_new_layer_changes_nothing_and_a_trained_one_is_the_formula(bits, bias):
    layer = make_layer(bits, bias=bias)
    x = mx.random.normal((10, N_IN), key=mx.random.key(5))
    assert mx.allclose(layer(x), layer.base(x), rtol=1e-5, atol=1e-5)
    layer.lora_B = mx.random.normal((N_OUT, R), key=mx.random.key(2))
    layer.lora_magnitude_vector = mx.random.uniform(1, 9, (N_OUT,), key=mx.random.key(4))
    whole = plain_weight(layer.base) + layer.scale * (layer.lora_B @ layer.lora_A)
    norms = mx.linalg.norm(whole, axis=1)
    assert mx.allclose(layer.row_norms(), norms, rtol=1e-4)
    expected = x @ (layer.lora_magnitude_vector / norms)[:, None].__mul__(whole).T
    expected = expected + (layer.base.bias if bias else 0)
    assert mx.allclose(layer(x), expected, rtol=1e-4, atol=1e-3)


def test_a_half_precision_base_keeps_float32_masters_and_its_own_dtype():
    layer = make_layer(dtype=mx.bfloat16)
    x = mx.random.normal((3, N_IN)).astype(mx.bfloat16)
    assert layer(x).dtype == mx.bfloat16
    assert layer.lora_magnitude_vector.dtype == mx.float32


@pytest.fixture
def their_base(base_folder):
    return AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32).eval()


@pytest.fixture
def our_model(our_base):
    yield our_base.model
    remove(our_base.model)


def our_loss(model, adapter, layers):
    install(layers, adapter)
    logits = model(mx.array(TOKENS))[0, :-1]
    return nn.losses.cross_entropy(logits, mx.array(TOKENS[0, 1:])).mean()


@pytest.mark.parametrize("direction", ["ours in PEFT", "PEFT's here"])
def test_logits_and_gradients_are_pefts(our_model, their_base, make_adapter, tmp_path, direction):
    if direction == "ours in PEFT":
        folder = make_adapter(r=4, lora_alpha=12, use_dora=True, target_modules=ALL)
        theirs = PeftModel.from_pretrained(their_base, folder, is_trainable=True)
    else:
        folder = tmp_path
        torch.manual_seed(1)
        config = PeftLoraConfig(
            r=4, lora_alpha=12, use_dora=True, target_modules=ALL, task_type="CAUSAL_LM"
        )
        theirs = get_peft_model(their_base, config)
        with torch.no_grad():
            for name, weight in theirs.named_parameters():
                if "lora_B" in name:
                    weight.copy_(0.3 * torch.randn(weight.shape))
                if "lora_magnitude_vector" in name:
                    weight.mul_(0.5 + torch.rand(weight.shape))
        theirs.save_pretrained(folder)
    layers = attach(our_model, load_adapter(folder))
    out = theirs.eval()(torch.tensor(TOKENS), labels=torch.tensor(TOKENS))
    out.loss.backward()
    assert np.abs(np.array(our_model(mx.array(TOKENS))) - out.logits.detach().numpy()).max() < 1e-4
    adapter = adapter_of(layers)
    loss, gradients = mx.value_and_grad(lambda a: our_loss(our_model, a, layers))(adapter)
    install(layers, adapter)
    assert loss.item() == pytest.approx(out.loss.item(), abs=1e-5)
    wanted = {name: p.grad.numpy() for name, p in theirs.named_parameters() if p.requires_grad}
    assert len(wanted) == 3 * len(layers)
    for path, weights in gradients.items():
        for name, gradient in weights.items():
            want = wanted[f"base_model.model.{path}.{name}.default.weight"]
            distance = np.linalg.norm(np.array(gradient) - want) / np.linalg.norm(want)
            assert distance < 1e-4, (path, name)


def test_a_settled_layer_computes_its_norms_once_and_forgets_them_with_new_weights(monkeypatch):
    layer = make_layer()
    layer.lora_B = mx.random.normal((N_OUT, R), key=mx.random.key(2))
    x = mx.random.normal((10, N_IN), key=mx.random.key(5))
    before = layer(x)
    counted = []
    plain = DoRALinear.row_norms
    monkeypatch.setattr(DoRALinear, "row_norms", lambda self: counted.append(1) or plain(self))
    layer.settle(True)
    assert mx.array_equal(layer(x), before)
    assert mx.array_equal(layer(x), before)
    assert len(counted) == 1
    layers = {"it": layer}
    other = {"it": adapter_of(layers)["it"] | {"lora_B": 2 * layer.lora_B}}
    install(layers, other)
    fresh = make_layer()
    fresh.lora_B = 2 * mx.random.normal((N_OUT, R), key=mx.random.key(2))
    assert mx.array_equal(layer(x), fresh(x))
