"""Files that PEFT writes, or writes no more but loads: we compute what it computes with them."""

import json

import mlx.core as mx
import numpy as np
import pytest
import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from peft.tuners.lora.config import VeloraConfig
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from mlx_yoda.adapters.peft import load_adapter
from mlx_yoda.config.schema import ModelConfig
from mlx_yoda.errors import UserError
from mlx_yoda.generation import attach
from mlx_yoda.lora.inject import remove
from mlx_yoda.recipes.export import export

pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning",
    "ignore:Setting `save_embedding_layers`:UserWarning",
    "ignore:You have requested `ensure_weight_tying`:UserWarning",
    "ignore:You have passed exclude_modules:UserWarning",
)
TOKENS = np.array([[5, 17, 40, 3, 99, 8, 61, 23]])
PLAIN = {"r": 3, "lora_alpha": 8, "target_modules": ["o_proj", "down_proj"]}


@pytest.fixture
def saved(base_folder, tmp_path):
    """PEFT's own file of an adapter with random B, after what `change` does to its two halves."""

    def save(change=lambda config, tensors: None, **keys):
        torch.manual_seed(1)
        config = PeftLoraConfig(**PLAIN | keys, task_type="CAUSAL_LM", init_lora_weights=False)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base_folder), config)
        model.save_pretrained(tmp_path / "saved")
        file, weights = (
            tmp_path / "saved" / f"adapter_{name}" for name in ("config.json", "model.safetensors")
        )
        stored, tensors = json.loads(file.read_text()), load_file(weights)
        change(stored, tensors)
        file.write_text(json.dumps(stored))
        save_file(tensors, weights, metadata={"format": "pt"})
        return tmp_path / "saved"

    return save


def theirs(base_folder, adapter):
    base = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    with torch.no_grad():
        return PeftModel.from_pretrained(base, adapter).eval()(torch.tensor(TOKENS)).logits.numpy()


def ours(model, adapter):
    attach(model, load_adapter(adapter))
    try:
        return np.array(model(mx.array(TOKENS)))
    finally:
        remove(model)


def all_linear(config, tensors):
    config["target_modules"] = "all-linear"


def in_float64(config, tensors):
    tensors |= {name: tensor.double() for name, tensor in tensors.items()}


def magnitudes_as_modules(config, tensors):
    for name in [name for name in tensors if name.endswith("magnitude_vector")]:
        tensors[f"{name}.weight"] = 1.5 * tensors.pop(name)


def with_the_embedding(config, tensors):
    tensors["base_model.model.lm_head.weight"] = tensors[
        "base_model.model.lm_head.base_layer.weight"
    ]
    del tensors["base_model.model.lm_head.base_layer.weight"]


FILES = {
    "targets that are not there": ({"target_modules": ["o_proj", "q_proj", "c_attn"]}, None),
    "exclusions that are not there": ({"exclude_modules": ["vision_tower", "o_gate"]}, None),
    "a target that is excluded": (
        {"target_modules": ["o_proj", "lm_head"], "exclude_modules": ["lm_head"]}, None,
    ),
    "all-linear": ({"target_modules": "all-linear"}, all_linear),
    "float64": ({}, in_float64),
    "VeLoRA": ({"velora_config": VeloraConfig()}, None),
    "layers_pattern": ({"layers_to_transform": [1], "layers_pattern": ["h", "layers"]}, None),
    "magnitudes as modules": ({"use_dora": True}, magnitudes_as_modules),
    "lora_alpha 0": ({"lora_alpha": 0}, None),
    "an alpha of 0": ({"alpha_pattern": {"o_proj": 0}}, None),
    "the head's base layer": ({"target_modules": ["o_proj", "lm_head"]}, None),
    "the head as such": ({"target_modules": ["o_proj", "lm_head"]}, with_the_embedding),
    "ensure_weight_tying": ({"ensure_weight_tying": True}, None),
}  # fmt: skip
each_file = pytest.mark.parametrize(("keys", "change"), FILES.values(), ids=FILES)


@each_file
def test_we_compute_what_peft_computes(our_base, base_folder, saved, tmp_path, keys, change):
    adapter = saved(change or (lambda config, tensors: None), **keys)
    base = np.array(our_base.model(mx.array(TOKENS)))
    expected, found = theirs(base_folder, adapter), ours(our_base.model, adapter)
    assert np.abs(found - expected).max() < 1e-4
    assert (np.abs(found - base).max() > 0.1) == (keys.get("lora_alpha") != 0)
    # And after a turn through each format.
    model = ModelConfig(str(base_folder))
    for to in ("peft", "mlx-lm"):
        export(str(adapter), tmp_path / to, to, model, base_of_adapter=False)
    assert np.abs(theirs(base_folder, tmp_path / "peft") - expected).max() < 1e-4
    from mlx_yoda.recipes.respond import read_adapter

    attach(our_base.model, read_adapter(str(tmp_path / "mlx-lm")))
    again = np.array(our_base.model(mx.array(TOKENS)))
    remove(our_base.model)
    assert np.abs(again - expected).max() < 1e-4


def test_the_file_has_what_its_name_says(saved):
    """The conditions above are there: PEFT did not put them right while saving."""
    config = json.loads((saved(all_linear) / "adapter_config.json").read_text())
    assert config["target_modules"] == "all-linear"
    folder = saved(target_modules=["o_proj", "lm_head"])
    assert "base_model.model.lm_head.base_layer.weight" in load_file(
        folder / "adapter_model.safetensors"
    )


@pytest.mark.parametrize("change", ["value", "rows", "name"])
def test_a_base_weight_that_was_changed_is_refused(our_base, saved, base_folder, tmp_path, change):
    name = "base_model.model.lm_head.base_layer.weight"

    def changed(config, tensors):
        weight = tensors.pop(name)
        if change == "value":
            weight[3, 4] += 1e-3
        elif change == "rows":
            weight = weight[:-1].clone()
        tensors[name.replace("lm_head", "lm_tail") if change == "name" else name] = weight

    adapter = saved(changed, target_modules=["o_proj", "lm_head"])
    with pytest.raises(UserError, match=r"brings its own lm_(head|tail)\.weight"):
        ours(our_base.model, adapter)
    for to in ("peft", "mlx-lm", "merged", "gguf"):
        with pytest.raises(UserError, match=r"brings its own lm_(head|tail)\.weight"):
            export(
                str(adapter), tmp_path / to, to, ModelConfig(str(base_folder)),
                base_of_adapter=False,
            )  # fmt: skip
        assert not (tmp_path / to).exists()


def test_a_copy_in_half_precision_is_the_bases(our_base, saved):
    def halved(config, tensors):
        name = "base_model.model.lm_head.base_layer.weight"
        tensors[name] = tensors[name].bfloat16()

    attach(our_base.model, load_adapter(saved(halved, target_modules=["o_proj", "lm_head"])))
    remove(our_base.model)


def test_on_a_quantised_base_the_copy_is_quantised_to_be_held_against_it(base_folder, saved):
    from mlx_yoda.config.schema import Quantization
    from mlx_yoda.model.load import load

    adapter = saved(target_modules=["o_proj", "lm_head"])
    model = load(base_folder, quantization=Quantization(bits=4, group_size=32)).model
    attach(model, load_adapter(adapter))

    def changed(config, tensors):
        tensors["base_model.model.lm_head.base_layer.weight"] *= 1.5
        tensors["base_model.model.lm_head.base_layer.weight"][0, :16] *= -1

    remove(model)
    with pytest.raises(UserError, match="brings its own"):
        attach(model, load_adapter(saved(changed, target_modules=["o_proj", "lm_head"])))


def test_weights_that_are_missing_are_named(our_base, saved):
    """PEFT warns and takes a random A for them; that would be another adapter."""

    def cut(config, tensors):
        for letter in "AB":
            del tensors[f"base_model.model.model.layers.1.mlp.down_proj.lora_{letter}.weight"]

    with pytest.raises(UserError, match=r"no weights for model\.layers\.1\.mlp\.down_proj"):
        ours(our_base.model, saved(cut))
