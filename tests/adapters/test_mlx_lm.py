"""mlx-lm's adapters from strangers: refused as PEFT's are, by the tensor or the key."""

import json

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
import safetensors.numpy
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.tuner.utils import linear_to_lora_layers

from mlx_yoda.adapters.mlx_lm import load_mlx_lm, save_mlx_lm
from mlx_yoda.adapters.peft import Adapter
from mlx_yoda.config.schema import LoraConfig
from mlx_yoda.errors import UserError
from mlx_yoda.generation import attach
from mlx_yoda.lora.inject import remove

PATH = "model.layers.0.mlp.down_proj"


@pytest.fixture
def folder(tmp_path):
    lora = LoraConfig(r=2, target_modules=["down_proj"])
    tensors = {PATH: (mx.ones((2, 6)), mx.ones((4, 2)))}
    save_mlx_lm(tmp_path, Adapter(lora, tensors, "a/base"))
    assert load_mlx_lm(tmp_path).lora == lora
    return tmp_path


def change(folder, **tensors):
    file = folder / "adapters.safetensors"
    arrays = safetensors.numpy.load_file(file) | tensors
    safetensors.numpy.save_file({k: v for k, v in arrays.items() if v is not None}, file)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({f"{PATH}.lora_a": np.full((6, 2), np.nan, np.float32)}, "down_proj.lora_a holds nan at"),
        ({f"{PATH}.lora_a": np.ones((6, 3), np.float32)}, "down_proj are no pair of rank 2"),
        ({f"{PATH}.lora_a": np.ones((0, 2), np.float32)}, "down_proj are no pair of rank 2"),
        ({f"{PATH}.lora_b": np.ones((2, 4), np.int32)}, "down_proj.lora_b is I32"),
        ({f"{PATH}.lora_b": None}, r"down_proj has \['lora_a'\], not"),
        ({f"{PATH}.m": np.ones(4, np.float32)}, "down_proj has .*'m'"),
        ({"../x.lora_a": np.ones(4, np.float32)}, r"the tensor \.\./x\.lora_a is no LoRA"),
    ],
)
def test_tensors_that_do_not_belong_are_named(folder, tensors, message):
    change(folder, **tensors)
    with pytest.raises(UserError, match=message):
        load_mlx_lm(folder)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"fine_tune_type": ["full"]}, "fine_tune_type is"),
        ({"fine_tune_type": "dora"}, "down_proj has"),
        ({"lora_parameters": {"rank": 2, "scale": float("nan")}}, "NaN is not JSON"),
        ({"lora_parameters": {"rank": 2, "scale": 10**400}}, "lora_parameters must hold"),
        ({"lora_parameters": {"rank": 2, "scale": 1, "dropout": 2}}, "lora_parameters must hold"),
        ({"lora_parameters": {"rank": 3, "scale": 1}}, "down_proj are no pair of rank 3"),
        ({"lora_parameters": [2]}, "lora_parameters must hold"),
        ({"peft_config": [1]}, "peft_config must hold an object"),
        ({"peft_config": {"peft_type": "LORA"}}, "r must be a positive whole number"),
    ],
)
def test_keys_of_a_wrong_type_are_named(folder, keys, message):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))
    with pytest.raises(UserError, match=message):
        load_mlx_lm(folder)


def test_a_scale_of_zero_and_a_contradiction_are_refused(folder):
    file = folder / "adapter_config.json"
    for ours, message in (
        ({"lora_alpha": 0}, "is not what adapter_config.json says"),
        ({"lora_alpha": 1e-120}, "are too far apart for model.layers.0.mlp.down_proj"),
        ({"use_dora": True}, "contradict each other"),
    ):
        config = json.loads(file.read_text())
        config["peft_config"] |= ours
        file.write_text(json.dumps(config))
        with pytest.raises(UserError, match=message):
            load_mlx_lm(folder)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_what_mlx_lms_trainer_writes_is_read(our_base, base_folder, tmp_path, kind):
    """Its layers, its own way of saving them (metadata null), and its configuration's keys."""
    keys = ["self_attn.qkv_proj", "mlp.down_proj"]
    settings = {"rank": 3, "scale": 10.0, "dropout": 0.0, "keys": keys}
    model, _ = mlx_lm.load(str(base_folder))
    model.freeze()
    linear_to_lora_layers(model, 1, settings, use_dora=kind == "dora")
    for path, array in tree_flatten(model.trainable_parameters()):
        noise = 0.1 * mx.random.normal(array.shape, key=mx.random.key(len(path)))
        model.update(tree_unflatten([(path, array + noise)]))
    mx.save_safetensors(
        str(tmp_path / "adapters.safetensors"), dict(tree_flatten(model.trainable_parameters()))
    )
    config = {"fine_tune_type": kind, "num_layers": 1, "lora_parameters": settings}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    adapter = load_mlx_lm(tmp_path)
    assert adapter.lora.layers_to_transform == [1]
    assert adapter.lora.target_modules == ["down_proj", "qkv_proj"]
    ids = mx.array([[5, 17, 40, 3, 99, 8]])
    attach(our_base.model, adapter)
    ours = our_base.model(ids)
    remove(our_base.model)
    assert mx.abs(ours - our_base.model(ids)).max() > 0.1
    assert mx.abs(ours - model(ids)).max() < 1e-4
