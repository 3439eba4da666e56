"""The folder of a random Phi-3: what Transformers finds in it."""

import json
import subprocess
import sys

import mlx.core as mx
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, GenerationConfig, Phi3ForCausalLM

from benchmarks.random_phi3 import write_random_phi3
from mlx_yoda.errors import UserError
from mlx_yoda.model.load import load, resolve
from mlx_yoda.model.sizes import tensor_shapes

SIZES = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.05,
}


@pytest.fixture(scope="module")
def config():
    return json.loads((resolve("demo") / "config.json").read_text()) | SIZES


def weights(folder):
    found = {}
    for file in sorted(folder.glob("model*.safetensors")):
        found |= mx.load(str(file))
    return found


def test_transformers_finds_every_weight_it_needs(config, tmp_path):
    write_random_phi3(tmp_path / "m", config, tokenizer=resolve("demo"))
    model, info = Phi3ForCausalLM.from_pretrained(
        tmp_path / "m", output_loading_info=True, dtype=torch.float32
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    state = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    assert state == tensor_shapes(config)


def test_weights_are_drawn_from_the_configured_normal(config, tmp_path):
    write_random_phi3(tmp_path / "m", config)
    found = weights(tmp_path / "m")
    drawn = np.concatenate([np.array(w).ravel() for n, w in found.items() if "norm" not in n])
    assert abs(drawn.std() - 0.05) < 0.001
    assert abs(drawn.mean()) < 0.001
    assert mx.all(found["model.norm.weight"] == 1)
    assert not mx.array_equal(
        found["model.layers.0.mlp.down_proj.weight"], found["model.layers.1.mlp.down_proj.weight"]
    )


def test_shards_hold_the_same_weights_as_one_file(config, tmp_path):
    write_random_phi3(tmp_path / "one", config, seed=5, tokenizer=resolve("demo"))
    write_random_phi3(
        tmp_path / "many", config, seed=5, tokenizer=resolve("demo"), shard_bytes=20_000
    )
    write_random_phi3(tmp_path / "other", config, seed=6)
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    files = sorted(file.name for file in (tmp_path / "many").glob("model-*.safetensors"))
    assert len(files) > 2
    assert sorted(set(index["weight_map"].values())) == files
    one, many, other = (weights(tmp_path / name) for name in ("one", "many", "other"))
    assert index["metadata"]["total_size"] == sum(w.nbytes for w in one.values())
    assert all(mx.array_equal(one[name], many[name]) for name in tensor_shapes(config))
    assert not mx.array_equal(one["lm_head.weight"], other["lm_head.weight"])
    ours = load(tmp_path / "many").model(mx.array([[1, 2, 3]]))
    theirs = Phi3ForCausalLM.from_pretrained(tmp_path / "many", dtype=torch.float32).eval()
    with torch.no_grad():
        wanted = theirs(torch.tensor([[1, 2, 3]])).logits.numpy()
    assert np.abs(np.array(ours) - wanted).max() < 1e-5


def test_the_tokenizer_comes_along_and_sets_the_ids(config, tmp_path):
    write_random_phi3(tmp_path / "m", config, tokenizer=resolve("demo"), dtype="bfloat16")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "m")
    names = ("<|endoftext|>", "<|assistant|>", "<|end|>")
    ids = [tokenizer.convert_tokens_to_ids(name) for name in names]
    assert GenerationConfig.from_pretrained(tmp_path / "m").eos_token_id == ids
    written = json.loads((tmp_path / "m" / "config.json").read_text())
    assert written["eos_token_id"] == ids[0]
    assert written["torch_dtype"] == "bfloat16"
    assert {w.dtype for w in weights(tmp_path / "m").values()} == {mx.bfloat16}


def test_the_real_tokenizer_gives_the_real_ids(shared, tmp_path):
    real = shared / "data/phi-3-mini-4k-instruct"
    config = json.loads((real / "config.json").read_text())
    write_random_phi3(tmp_path / "m", config | SIZES, tokenizer=real)
    generation = json.loads((tmp_path / "m" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [32000, 32001, 32007]
    assert load(tmp_path / "m").tokenizer.eos_token_ids == {32000, 32001, 32007}


def test_the_shapes_are_phi3_minis(shared):
    real = json.loads((shared / "data/phi-3-mini-4k-instruct/config.json").read_text())
    assert sum(int(np.prod(shape)) for shape in tensor_shapes(real).values()) == 3_821_079_552


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"hidden_size": 36}, "36 does not make 4 heads"),
        ({"num_key_value_heads": 3}, "4 heads cannot share 3"),
        ({"vocab_size": 10}, "vocab_size is only 10"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(config, tmp_path, sizes, message):
    with pytest.raises(UserError, match=message):
        write_random_phi3(tmp_path / "m", config | sizes, tokenizer=resolve("demo"))
    assert not list(tmp_path.iterdir())


def test_the_command_writes_a_folder_once(config, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "benchmarks.random_phi3", str(tmp_path / "m")]
    command += ["--config", str(tmp_path), "--layers", "1", "--vocab-size", "64", "--seed", "3"]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "parameters in bfloat16" in first.stderr
    written = json.loads((tmp_path / "m" / "config.json").read_text())
    assert (written["num_hidden_layers"], written["vocab_size"]) == (1, 64)
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert second.stderr.strip() == f"error: {tmp_path / 'm'} exists: name a new folder."
