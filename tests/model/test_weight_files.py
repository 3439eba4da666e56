"""Weights that are not whole, lie elsewhere or are quantised by another library."""

import json
import shutil

import mlx.core as mx
import numpy as np
import pytest

from mlx_yoda.config.schema import ModelConfig
from mlx_yoda.errors import UserError
from mlx_yoda.model.convert import convert
from mlx_yoda.model.load import load, load_lazily
from mlx_yoda.recipes.sizing import config_when_loaded

INDEX = "model.safetensors.index.json"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 4973232\n".format(
    "a" * 64
)


@pytest.fixture
def folder(base_folder, tmp_path):
    return shutil.copytree(base_folder, tmp_path / "phi3")


def set_keys(folder, **keys):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


def shard(folder, count=2):
    """Cut the weights in two files, without an index."""
    weights = mx.load(str(folder / "model.safetensors"))
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    files = []
    for i in range(count):
        files.append(f"model-0000{i + 1}-of-0000{count}.safetensors")
        part = {name: weights[name] for name in names[i::count]}
        mx.save_safetensors(str(folder / files[-1]), part)
    return files


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", INDEX]
)
def test_a_pointer_of_git_lfs_is_named_with_the_remedy(folder, name):
    (folder / name).write_text(POINTER)
    with pytest.raises(UserError, match=rf"{name} is a Git LFS pointer.*git lfs pull"):
        load(folder)


def test_a_missing_shard_without_an_index_is_told_from_the_tensors(folder):
    files = shard(folder)
    (folder / files[1]).unlink()
    with pytest.raises(UserError, match=r"lack \d+ tensors .*\(\S+, \S+, \S+, …\): a file is miss"):
        load(folder)


def test_tensors_that_the_model_does_not_have_are_named(folder):
    weights = mx.load(str(folder / "model.safetensors"))
    mx.eval(weights)
    mx.save_safetensors(str(folder / "model-2.safetensors"), {"model.extra": mx.zeros(3)})
    with pytest.raises(UserError, match=r"have 1 tensor that .*\(model\.extra\)"):
        load(folder)


@pytest.mark.parametrize(
    "name", ["../../x.safetensors", "/etc/x.safetensors", r"..\x.safetensors", "C:x.safetensors"]
)
def test_an_index_that_leads_out_of_the_folder_is_refused(folder, tmp_path, name):
    (tmp_path / "x.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    (folder / INDEX).write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))
    for read in (load, lambda folder: convert(folder, tmp_path / "out")):
        with pytest.raises(UserError, match="a file outside the folder, which is not read"):
            read(folder)


def test_an_index_without_a_map_is_named(folder):
    (folder / INDEX).write_text("{}")
    with pytest.raises(UserError, match="has no weight_map"):
        load(folder)


@pytest.mark.parametrize(
    ("quantization", "name"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "gptq"),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "awq"),
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, "fp8"),
        (
            {"quant_method": "compressed-tensors", "format": "float-quantized"},
            r"compressed-tensors \(float-quantized\)",
        ),
        ({"quant_method": "hqq"}, "hqq"),
    ],
    ids=str,
)
def test_weights_of_another_quantiser_are_named_with_the_remedy(
    folder, tmp_path, quantization, name
):
    set_keys(folder, quantization_config=quantization)
    said = rf"quantised by {name}, which is not read here: take the original"
    for read in (
        load,
        lambda folder: convert(folder, tmp_path / "out"),
        lambda folder: config_when_loaded(ModelConfig(model_name_or_path=str(folder))),
    ):
        with pytest.raises(UserError, match=said):
            read(folder)


def test_awq_of_four_bits_is_read_as_what_it_stands_for(tmp_path):
    """Packed as AutoAWQ's gemm version packs it: eight columns an int32, in its own order."""
    rng = np.random.default_rng(0)
    n_out, n_in, group = 64, 64, 32
    q = rng.integers(0, 16, (n_in, n_out))
    zeros = rng.integers(0, 16, (n_in // group, n_out))
    scales = rng.random((n_in // group, n_out)).astype(np.float16)
    exact = (q - zeros.repeat(group, 0)) * scales.repeat(group, 0).astype(np.float32)

    def packed(values):
        order = np.array([0, 2, 4, 6, 1, 3, 5, 7])
        eight = values.reshape(values.shape[0], -1, 8)[..., order].astype(np.uint32)
        return mx.array((eight << (4 * np.arange(8, dtype=np.uint32))).sum(-1).astype(np.uint32))

    config = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 1, "vocab_size": 64}
    config |= {"num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 64}
    config["quantization_config"] = {"quant_method": "awq", "bits": 4, "group_size": group}
    weights = {"model.embed_tokens.weight": mx.ones((64, 64)), "lm_head.weight": mx.ones((64, 64))}
    weights |= {"model.norm.weight": mx.ones(64)}
    layer = "model.layers.0"
    for norm in ("input_layernorm", "post_attention_layernorm"):
        weights[f"{layer}.{norm}.weight"] = mx.ones(64)
    names = [f"self_attn.{p}_proj" for p in "qkvo"] + [
        f"mlp.{p}_proj" for p in ("gate", "up", "down")
    ]
    for name in names:
        weights[f"{layer}.{name}.qweight"] = packed(q)
        weights[f"{layer}.{name}.qzeros"] = packed(zeros)
        weights[f"{layer}.{name}.scales"] = mx.array(scales)
    mx.save_safetensors(str(tmp_path / "model.safetensors"), weights)
    (tmp_path / "config.json").write_text(json.dumps(config))
    model, _ = load_lazily(tmp_path, None, False)
    proj = model.layers[0].self_attn.q_proj
    found = mx.dequantize(proj.weight, proj.scales, proj.biases, proj.group_size, proj.bits)
    assert np.abs(np.array(found.astype(mx.float32)) - exact.T).max() < 0.02
