"""Llama, Qwen and Gemma on random weights: logits, an adapter, and its merged weights.

They run through mlx-lm's own models; nobody here has tried real weights.
"""

import mlx.core as mx
import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from mlx_yoda.adapters.peft import save_adapter
from mlx_yoda.config.schema import LoraConfig, ModelConfig
from mlx_yoda.data.batches import collate, needed
from mlx_yoda.data.packing import Packed
from mlx_yoda.data.shapes import choose_shapes
from mlx_yoda.lora.binding import adapter_of, install
from mlx_yoda.lora.inject import inject, remove
from mlx_yoda.model.load import load
from mlx_yoda.recipes.export import export
from mlx_yoda.train.forward import Arrays, forward_of
from tests.model.families import FAMILIES

LORA = LoraConfig(
    r=4, lora_alpha=8, lora_dropout=0.0, target_modules=["q_proj", "v_proj", "up_proj"]
)
TOKENS = np.random.default_rng(0).integers(3, 700, (1, 40))


BOUND = 1e-4


@pytest.fixture(scope="module", params=[name for name in FAMILIES if name != "Phi 3"])
def folder(request, family_folder):
    return family_folder(request.param)


def torch_logits(model, ids=TOKENS):
    with torch.no_grad():
        return model.eval()(torch.tensor(ids)).logits.numpy()


def test_logits_adapters_and_merged_weights_are_transformers(folder, tmp_path):
    base = load(folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    alone = np.array(base.model(mx.array(TOKENS)))
    assert np.abs(alone - torch_logits(theirs)).max() < BOUND

    layers = inject(base.model, LORA, mx.random.key(0))
    for index, layer in enumerate(layers.values()):
        layer.lora_B = 0.3 * mx.random.normal(layer.lora_B.shape, key=mx.random.key(index))
    ours = np.array(base.model(mx.array(TOKENS)))
    assert np.abs(ours - alone).max() > 0.1, "the adapter has to matter"
    pairs = {path: (layer.lora_A, layer.lora_B) for path, layer in layers.items()}
    save_adapter(tmp_path / "adapter", pairs, LORA, base_model_name_or_path=str(folder))
    theirs = PeftModel.from_pretrained(theirs, tmp_path / "adapter")
    assert np.abs(ours - torch_logits(theirs)).max() < BOUND

    loss, gradients = _loss_and_gradients(base.model, layers)
    ids = torch.tensor(TOKENS)
    for name, weight in theirs.named_parameters():
        weight.requires_grad = "lora_" in name
    out = theirs(ids, labels=ids)
    out.loss.backward()
    count = TOKENS.size - 1
    assert loss == pytest.approx(out.loss.item() * count, rel=BOUND)
    wanted = dict(theirs.named_parameters())
    for path, pair in gradients.items():
        for name, gradient in pair.items():
            want = wanted[f"base_model.model.{path}.{name}.default.weight"].grad.numpy() * count
            assert np.linalg.norm(np.array(gradient) - want) < 10 * BOUND * np.linalg.norm(want)

    remove(base.model)
    export(
        str(tmp_path / "adapter"),
        tmp_path / "merged",
        "merged",
        ModelConfig(),
        base_of_adapter=True,
    )
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    assert np.abs(ours - torch_logits(merged)).max() < BOUND
    assert np.abs(ours - np.array(load(tmp_path / "merged").model(mx.array(TOKENS)))).max() < BOUND


def _loss_and_gradients(model, layers):
    """Through our own training step, over padded rows."""
    row = Packed(TOKENS[0].astype(np.int32), np.ones(TOKENS.size, bool), (TOKENS.size,))
    batch = Arrays.of(collate([row], choose_shapes([needed([row])])))
    forward, own = forward_of(model), adapter_of(layers)

    def loss(adapter):
        install(layers, adapter)
        return forward(batch)

    value, gradients = mx.value_and_grad(loss)(own)
    install(layers, own)
    return value.item(), gradients
