"""Adapters in other programs: what those compute with them is what we compute."""

import json

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
import torch
from gguf import GGUFReader
from mlx_lm.generate import generate_step
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from mlx_yoda.config.schema import ModelConfig, Quantization
from mlx_yoda.errors import UserError
from mlx_yoda.generation import attach
from mlx_yoda.lora.inject import remove
from mlx_yoda.model import folder as model_folder
from mlx_yoda.model.convert import convert
from mlx_yoda.model.load import load
from mlx_yoda.recipes.export import export
from mlx_yoda.recipes.respond import read_adapter

TOKENS = np.array([[5, 17, 40, 3, 99, 8, 61, 23, 150, 77, 12]])
ALL = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
KINDS = {
    "plain": {"r": 4, "lora_alpha": 12, "target_modules": ALL},
    "rank-stabilised": {
        "r": 4, "lora_alpha": 5, "use_rslora": True, "target_modules": ["qkv_proj", "down_proj"]
    },
    "patterns": {
        "r": 4,
        "lora_alpha": 6,
        "target_modules": ALL,
        "rank_pattern": {r"layers\.0\.mlp\.down_proj": 7, "qkv_proj": 2},
        "alpha_pattern": {"o_proj": 20},
    },
    "one layer": {
        "r": 3, "lora_alpha": 8, "target_modules": ["o_proj"], "layers_to_transform": [0]
    },
    "DoRA": {"r": 4, "lora_alpha": 12, "use_dora": True, "target_modules": ALL},
}  # fmt: skip
each_kind = pytest.mark.parametrize("keys", KINDS.values(), ids=KINDS)


def run(source, destination, to, base=None, dtype=None, requantize=False):
    model = ModelConfig(model_name_or_path=str(base or "unused"), dtype=dtype)
    return export(
        str(source), destination, to, model, base_of_adapter=base is None, requantize=requantize
    )


def logits(model):
    return np.array(model(mx.array(TOKENS)).astype(mx.float32))


def torch_logits(model):
    with torch.no_grad():
        return model(torch.tensor(TOKENS)).logits.float().numpy()


def greedy(model):
    steps = generate_step(mx.array(TOKENS[0]), model, max_tokens=12)
    return [int(token) for token, _ in steps]


@pytest.fixture
def ours(our_base):
    """What we compute with an adapter: logits and greedy tokens."""

    def compute(folder):
        attach(our_base.model, read_adapter(str(folder)))
        result = logits(our_base.model), greedy(our_base.model)
        remove(our_base.model)
        assert np.abs(result[0] - logits(our_base.model)).max() > 0.5, "the adapter has to matter"
        return result

    return compute


@each_kind
def test_mlx_lm_computes_the_same(make_adapter, ours, base_folder, tmp_path, keys):
    source = make_adapter(**keys)
    run(source, tmp_path / "mlx", "mlx-lm")
    model, _ = mlx_lm.load(str(base_folder), adapter_path=str(tmp_path / "mlx"))
    expected, tokens = ours(source)
    assert np.abs(logits(model) - expected).max() < 1e-4
    assert greedy(model) == tokens
    assert np.abs(ours(tmp_path / "mlx")[0] - expected).max() < 1e-4  # and back here


@each_kind
def test_a_clean_folder_is_the_same_adapter_in_peft(
    make_adapter, ours, base_folder, tmp_path, keys
):
    source = make_adapter(**keys)
    (source / "trainer_state.json").write_text("{}")
    for name in ("README.md", "loss.svg", "tokenizer.model", "special_tokens_map.json"):
        (source / name).write_text("{}")
    run(source, tmp_path / "peft", "peft")
    assert sorted(file.name for file in (tmp_path / "peft").iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors",
        "loss.svg", "special_tokens_map.json", "tokenizer.model",
    ]  # fmt: skip
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "peft" / name).read_bytes() == (source / name).read_bytes()
    base = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, tmp_path / "peft").eval()
    assert np.abs(torch_logits(theirs) - ours(source)[0]).max() < 1e-4


@each_kind
def test_merged_weights_load_in_transformers_and_in_mlx_lm(
    make_adapter, ours, base_folder, tmp_path, monkeypatch, keys
):
    monkeypatch.setattr(model_folder.write_weights, "__kwdefaults__", {"shard_bytes": 20_000})
    source = make_adapter(**keys)
    run(source, tmp_path / "merged", "merged")
    assert len(list((tmp_path / "merged").glob("model-*-of-*.safetensors"))) > 2
    expected, tokens = ours(source)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    assert theirs.dtype == torch.float32
    assert np.abs(torch_logits(theirs) - expected).max() < 1e-4
    model, tokenizer = mlx_lm.load(str(tmp_path / "merged"))
    assert np.abs(logits(model) - expected).max() < 1e-4
    assert greedy(model) == tokens
    assert (
        tokenizer.encode("You must.")
        == AutoTokenizer.from_pretrained(base_folder)("You must.")["input_ids"]
    )
    assert (
        GenerationConfig.from_pretrained(tmp_path / "merged").eos_token_id
        == GenerationConfig.from_pretrained(base_folder).eos_token_id
    )


def test_merged_weights_are_rounded_once(make_adapter, base_folder, tmp_path):
    source = make_adapter(**KINDS["plain"])
    run(source, tmp_path / "full", "merged")
    run(source, tmp_path / "half", "merged", dtype="bfloat16")
    full = model_folder.read_weights(tmp_path / "full")
    half = model_folder.read_weights(tmp_path / "half")
    assert full.keys() == half.keys() == model_folder.read_weights(base_folder).keys()
    assert all(mx.array_equal(half[name], full[name].astype(mx.bfloat16)) for name in full)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "half").dtype == torch.bfloat16


@pytest.fixture(scope="module")
def packed_base(base_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed") / "base"
    convert(base_folder, folder, quantization=Quantization(4, 32))
    return folder


def test_a_quantised_base_is_unpacked_and_the_loss_of_packing_again_is_measured(
    make_adapter, packed_base, tmp_path
):
    source = make_adapter(**KINDS["plain"])
    exported = run(source, tmp_path / "merged", "merged", base=packed_base)
    packed = load(packed_base)
    attach(packed.model, read_adapter(str(source)))
    expected = logits(packed.model)
    assert "quantization" not in json.loads((tmp_path / "merged" / "config.json").read_text())
    for computed in (
        torch_logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()),
        logits(load(tmp_path / "merged").model),
    ):
        assert np.abs(computed - expected).max() < 1e-3
    assert len(exported.losses) == 6  # down_proj is no multiple of 32 wide, so it is not packed
    again = run(source, tmp_path / "packed", "merged", base=packed_base, requantize=True)
    assert again.losses == exported.losses
    wrong = np.abs(logits(load(tmp_path / "packed").model) - expected).max()
    assert wrong > 0.05  # as the measured loss says
    path = "model.layers.0.mlp.gate_up_proj"
    base = load(packed_base).model.layers[0].mlp.gate_up_proj
    unpacked = mx.dequantize(base.weight, base.scales, base.biases, 32, 4)
    a, b = read_adapter(str(source)).tensors[path]
    want = 3 * (b @ a)  # alpha / r
    got = load(tmp_path / "packed").model.layers[0].mlp.gate_up_proj
    have = mx.dequantize(got.weight, got.scales, got.biases, 32, 4) - unpacked
    error = (mx.linalg.norm(have - want) / mx.linalg.norm(want)).item()
    assert again.losses[path].error == pytest.approx(error, rel=1e-3)


@pytest.mark.parametrize("name", [name for name in KINDS if name != "DoRA"])
def test_a_gguf_file_holds_the_same_update(make_adapter, tmp_path, name):
    source = make_adapter(**KINDS[name])
    run(source, tmp_path / "yoda.gguf", "gguf")
    reader = GGUFReader(tmp_path / "yoda.gguf")
    fields = {key: field.contents() for key, field in reader.fields.items()}
    assert fields["general.architecture"] == "phi3"
    assert (fields["general.type"], fields["adapter.type"]) == ("adapter", "lora")
    found = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    adapter = read_adapter(str(source))
    names = {
        "self_attn.qkv_proj": "attn_qkv",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    assert len(found) == 2 * len(adapter.tensors)
    for path, (a, b) in adapter.tensors.items():
        _, _, layer, module = path.split(".", 3)
        a_found, b_found = (
            found[f"blk.{layer}.{names[module]}.weight.lora_{letter}"] for letter in "ab"
        )
        assert np.array_equal(a_found, np.array(a))
        if name == "plain":
            assert np.array_equal(b_found, np.array(b))
        r = KINDS[name]["r"]
        own_r = a.shape[0]
        alpha = KINDS[name]["lora_alpha"]
        if name == "patterns" and module.endswith("o_proj"):
            alpha = 20
        scale = alpha / (np.sqrt(r) if name == "rank-stabilised" else own_r)
        theirs = fields["adapter.lora.alpha"] / own_r  # llama.cpp's get_scale
        want = scale * (np.array(b) @ np.array(a))
        np.testing.assert_allclose(theirs * (b_found @ a_found), want, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(
    make_adapter, base_folder, tmp_path, packed_base
):
    dora, plain = make_adapter(**KINDS["DoRA"]), make_adapter(**KINDS["plain"])
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "llama", "num_hidden_layers": 2}')
    (tmp_path / "there").mkdir()
    for message, call in {
        "knows no DoRA": lambda: run(dora, tmp_path / "x.gguf", "gguf"),
        "is a llama": lambda: run(plain, tmp_path / "x.gguf", "gguf", base=other),
        "not quantised": lambda: run(plain, tmp_path / "x", "merged", requantize=True),
        "exists": lambda: run(plain, tmp_path / "there", "peft"),
        "made for another model": lambda: run(plain, tmp_path / "x", "merged", base="demo"),
    }.items():
        with pytest.raises(UserError, match=message):
            call()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "there"]
