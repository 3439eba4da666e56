"""Loading a base model, and saying in one sentence why it cannot be loaded."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import torch
from mlx.utils import tree_flatten
from transformers import AutoModelForCausalLM

from mlx_yoda.errors import UserError
from mlx_yoda.model.load import fetch, is_demo, load, resolve
from tests.machine import PATIENCE


@pytest.fixture
def folder(base_folder, tmp_path):
    """A copy to break."""
    return shutil.copytree(base_folder, tmp_path / "phi3")


def change_config(folder, **keys):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


def test_the_model_is_frozen_and_computes_what_transformers_computes(base_folder, our_base):
    assert not tree_flatten(our_base.model.trainable_parameters())
    assert not our_base.model.training
    assert our_base.path == base_folder
    assert our_base.name == str(base_folder)
    tokens = np.array([[5, 17, 40, 3, 99, 8, 61]])
    theirs = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32).eval()
    with torch.no_grad():
        wanted = theirs(torch.tensor(tokens)).logits.numpy()
    assert np.abs(wanted).max() > 1
    assert np.abs(np.array(our_base.model(mx.array(tokens))) - wanted).max() < 1e-4


def test_answers_end_at_either_end_of_turn_whatever_the_files_say(folder):
    (folder / "generation_config.json").unlink()
    tokenizer = load(folder).tokenizer
    ends = {tokenizer.convert_tokens_to_ids(end) for end in ("<|end|>", "<|endoftext|>")}
    assert tokenizer.eos_token_ids == ends


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_weights_are_cast_on_demand(base_folder, dtype):
    model = load(base_folder, dtype=dtype).model
    assert {w.dtype for _, w in tree_flatten(model.parameters())} == {getattr(mx, dtype)}


def test_the_word_demo_means_the_model_in_the_package():
    assert resolve("elsewhere") == "elsewhere"
    assert fetch("demo") == resolve("demo")
    assert load("demo").name == "demo"


def test_any_path_to_the_package_s_demo_means_it(tmp_path, monkeypatch):
    ours = Path(resolve("demo"))
    (tmp_path / "link").symlink_to(ours.parents[2])
    for name in (ours, f"{ours}/", tmp_path / "link" / "mlx_yoda" / "demo" / "model"):
        assert is_demo(name)
    gone = "/nowhere/lib/python3.11/site-packages/mlx_yoda/demo/model"
    assert resolve(gone) == fetch(gone) == ours
    assert not is_demo("/nowhere/demo/model")
    assert not is_demo("owner/mlx_yoda")
    assert not is_demo("x" * 4000)


def test_a_folder_that_is_there_is_itself_whatever_its_name(tmp_path, monkeypatch):
    other = tmp_path / "mlx_yoda" / "demo" / "model"
    other.mkdir(parents=True)
    assert fetch(other) == other
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert fetch("demo") == resolve("demo")


def test_a_missing_folder_is_told_from_a_hub_id(tmp_path):
    with pytest.raises(
        UserError, match=r"nowhere: there is no such folder, and it is not a Hub id"
    ):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"phi3: .* owner/name"):
        load("phi3")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file, but a folder is needed"):
        load(tmp_path / "file")


@pytest.mark.slow
@pytest.mark.parametrize(
    "environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}]
)
def test_without_a_network_a_hub_id_fails_at_once(tmp_path, environment):
    program = (
        "import sys, time\n"
        "from mlx_yoda.errors import UserError\n"
        "from mlx_yoda.model.load import load\n"
        "start = time.process_time()\n"
        "try: load('owner/model')\n"
        "except UserError as error: print(error)\n"
        "sys.exit(time.process_time() - start > 10)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | environment | {"HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert done.stdout.startswith("owner/model: there is no such folder here, and the Hub cannot")
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_a_folder_without_a_part_is_told_which(folder):
    (folder / "tokenizer.json").rename(folder / "t")
    with pytest.raises(UserError, match="has no tokenizer"):
        load(folder)
    (folder / "t").rename(folder / "tokenizer.json")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="has no weights"):
        load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(UserError, match=r"is no model folder: it has no config\.json"):
        load(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize("content", ["[1]", "{", "[" * 100_000])
def test_a_file_that_holds_no_json_object_is_named(folder, name, content):
    (folder / name).write_text(content)
    with pytest.raises(UserError, match=rf"{name} (cannot be read as|must hold a) JSON"):
        load(folder)


def test_a_missing_shard_is_named(folder):
    shards = {"lm_head.weight": "model-00002-of-00002.safetensors"}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(UserError, match=r"lacks model-00002-of-00002\.safetensors"):
        load(folder)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"model_type": "no_such_model"}, "no_such_model not supported"),
        ({"model_type": None}, "names no model_type"),
        ({"model_file": "evil.py"}, "model.trust_remote_code=true"),
        ({"hidden_size": 48}, "cannot be loaded: ValueError"),
        ({"num_hidden_layers": 3}, r"lack 6 tensors of the model .*model\.layers\.2\."),
    ],
)
def test_a_configuration_that_does_not_fit_is_explained(folder, keys, message):
    change_config(folder, **keys)
    with pytest.raises(UserError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_broken_files_are_explained(folder, name):
    (folder / name).write_bytes(b'{"a')
    with pytest.raises(UserError, match=r"cannot be (read|loaded)"):
        load(folder)


def test_the_models_own_code_runs_only_when_trusted(folder):
    code = "from mlx_lm.models.phi3 import Model, ModelArgs\nprint('chatter')\n"
    (folder / "own.py").write_text(code)
    change_config(folder, model_file="own.py")
    assert load(folder, trust_remote_code=True).config["model_file"] == "own.py"


def test_library_chatter_stays_off_standard_output(folder, capsys):
    (folder / "own.py").write_text("from mlx_lm.models.phi3 import *\nprint('chatter')\n")
    change_config(folder, model_file="own.py")
    load(folder, trust_remote_code=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "chatter" in captured.err
