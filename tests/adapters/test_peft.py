"""The files of an adapter: what PEFT reads in them, what comes back, what is refused."""

import json
import os
import pickle
import time
from itertools import count
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from mlx_yoda.adapters import peft_tensors
from mlx_yoda.adapters.peft import load_adapter, save_adapter
from mlx_yoda.config.schema import LoraConfig
from mlx_yoda.errors import UserError

PATH = "model.layers.0.self_attn.qkv_proj"
NAME = f"base_model.model.{PATH}.lora_A.weight"
# Initialisations that change the base's weights too: A and B alone say nothing.
OTHER_BASES = ["pissa", "pissa_niter_4", "olora", "corda", "lora_ga", "loftq"]


def pairs(r=2, paths=(PATH,)):
    keys = mx.random.split(mx.random.key(7), 2 * len(paths))
    return {
        path: (
            mx.random.normal((r, 6), key=keys[2 * i]),
            mx.random.normal((4, r), key=keys[2 * i + 1]),
        )
        for i, path in enumerate(paths)
    }


@pytest.fixture
def adapter(tmp_path):
    lora = LoraConfig(r=2, target_modules=["qkv_proj"])
    save_adapter(tmp_path, pairs(), lora, base_model_name_or_path="a/base", revision="main")
    return tmp_path


def change_config(folder, **keys):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


def write_tensors(folder, tensors):
    safetensors.torch.save_file(tensors, folder / "adapter_model.safetensors")


def read_tensors(folder):
    return safetensors.torch.load_file(folder / "adapter_model.safetensors")


def test_a_busy_machine_finds_what_is_targeted(adapter, monkeypatch):
    clock = SimpleNamespace(monotonic=count(0, 3600).__next__, process_time=time.process_time)
    monkeypatch.setattr(peft_tensors, "time", clock)
    assert load_adapter(adapter).tensors.keys() == {PATH}


def test_what_is_saved_comes_back(adapter):
    loaded = load_adapter(adapter)
    assert loaded.lora == LoraConfig(r=2, target_modules=["qkv_proj"])
    assert (loaded.base_model_name_or_path, loaded.revision) == ("a/base", "main")
    assert loaded.tensors.keys() == {PATH}
    for ours, wanted in zip(loaded.tensors[PATH], pairs()[PATH], strict=True):
        assert ours.dtype == mx.float32
        assert mx.array_equal(ours, wanted)


def test_the_tensor_file_is_named_and_marked_as_pefts(adapter):
    with safe_open(adapter / "adapter_model.safetensors", framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}
        assert list(file.keys()) == [NAME, NAME.replace("lora_A", "lora_B")]
        assert file.get_tensor(NAME).shape == (2, 6)
        assert file.get_tensor(NAME).dtype == np.float32


def test_saving_twice_gives_the_same_bytes(tmp_path):
    paths = [f"model.layers.{i}.mlp.down_proj" for i in range(12)]
    tensors = pairs(paths=paths)
    for name, way in (("one", 1), ("two", -1)):
        lora = LoraConfig(r=2, target_modules=["o_proj", "down_proj"][::way])
        some = {path: tensors[path] for path in paths[::way]}
        save_adapter(tmp_path / name, some, lora, base_model_name_or_path="b")
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_layers_come_back_in_the_models_order(tmp_path):
    paths = [f"model.layers.{i}.mlp.down_proj" for i in (0, 2, 10)]
    lora = LoraConfig(r=2, target_modules=["down_proj"])
    save_adapter(tmp_path, pairs(paths=paths[::-1]), lora, base_model_name_or_path="b")
    assert list(load_adapter(tmp_path).tensors) == paths


def test_transposed_and_half_precision_arrays_are_saved_as_they_read(tmp_path):
    a, b = mx.arange(12.0).reshape(6, 2).T, mx.ones((4, 2), mx.bfloat16)
    lora = LoraConfig(r=2, target_modules=["qkv_proj"])
    save_adapter(tmp_path, {PATH: (a, b)}, lora, base_model_name_or_path="b")
    saved_a, saved_b = load_adapter(tmp_path).tensors[PATH]
    assert mx.array_equal(saved_a, a)
    assert mx.array_equal(saved_b, mx.ones((4, 2)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_files_are_read_as_float32(adapter, dtype):
    halves = {name: t.to(getattr(torch, dtype)) for name, t in read_tensors(adapter).items()}
    write_tensors(adapter, halves)
    a, _ = load_adapter(adapter).tensors[PATH]
    assert a.dtype == mx.float32
    assert np.array_equal(np.array(a), halves[NAME].float().numpy())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"peft_type": "IA3"}, "'IA3'"),
        ({"use_dora": "yes"}, "use_dora must be true or false"),
        ({"bias": "lora_only"}, "bias = 'lora_only'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        *(({"init_lora_weights": way}, "init_lora_weights") for way in OTHER_BASES),
        ({"layer_replication": [[0, 1], [1, 2]]}, "layer_replication"),
        ({"lora_bias": True}, "lora_bias"),
        ({"some_future_method": {"on": 1}}, "some_future_method"),
        ({"layers_pattern": "h", "layers_to_transform": [0]}, f"{NAME}.*does not target"),
        ({"layers_pattern": [1]}, "layers_pattern must be text, a list of texts or null"),
        ({"layers_pattern": "(", "layers_to_transform": [0]}, "layers_pattern.*regular expression"),
        ({"task_type": "SEQ_CLS"}, "task_type"),
        ({"r": 0}, "r must be a positive whole number"),
        ({"r": True}, "r must be"),
        ({"r": None}, "r must be"),
        ({"lora_alpha": "16"}, "lora_alpha must be a finite number"),
        ({"lora_alpha": float("nan")}, r"config\.json cannot be read as JSON: NaN is not JSON"),
        ({"lora_alpha": -float("inf")}, r"config\.json cannot .* -Infinity is not JSON"),
        ({"lora_alpha": 1e39}, r"lora_alpha must be a finite number in float32, not 1e\+39"),
        ({"lora_alpha": True}, "lora_alpha must be a finite number"),
        ({"alpha_pattern": {"qkv_proj": -1e39}}, "alpha_pattern must be"),
        ({"lora_alpha": 10**400}, "lora_alpha must be a finite number in float32, not 1000"),
        ({"lora_dropout": 1}, "lora_dropout must be"),
        ({"use_rslora": "yes"}, "use_rslora must be true or false"),
        ({"target_modules": [1]}, "target_modules must be"),
        ({"target_modules": r"(.|..|...)*[^a-z]"}, "target_modules.*takes too long"),
        ({"rank_pattern": {r"(.|..|...)*[^a-z]": 2}}, "rank_pattern.*takes too long"),
        ({"rank_pattern": [2]}, "rank_pattern must be"),
        ({"r": [2] * 10**5}, r"r must be a positive whole number, not \[2, 2, .*…\.$"),
        ({"revision": 1}, "revision must be text, not 1"),
        ({"base_model_name_or_path": ["a"]}, "base_model_name_or_path must be text"),
        ({"\x1b]0;": 1}, r"'\\x1b\]0;' = 1"),
        ({"target_modules": None}, "target_modules must be"),
        ({"target_modules": "(qkv"}, "regular expression"),
        ({"rank_pattern": {"qkv_proj": 1.5}}, "rank_pattern must be"),
        ({"layers_to_transform": "1"}, "layers_to_transform must be"),
        ({"r": 3}, rf"{NAME}.*rank 3"),
        ({"rank_pattern": {"qkv_proj": 5}}, rf"{NAME}.*rank 5"),
        ({"target_modules": ["o_proj"]}, f"{NAME}.*does not target"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(adapter, keys, message):
    change_config(adapter, **keys)
    with pytest.raises(UserError, match=message):
        load_adapter(adapter)


def test_keys_that_change_nothing_are_ignored(adapter):
    idle = {"use_dora": False, "loftq_config": {}, "some_future_method": None, "peft_version": "9"}
    change_config(adapter, **idle, init_lora_weights="gaussian", layers_pattern=["layers"])
    assert load_adapter(adapter).lora == LoraConfig(r=2, target_modules=["qkv_proj"])


def test_what_a_configuration_does_not_say_is_as_peft_has_it(adapter):
    """Training that goes on from it drops nothing, although a new adapter of ours does."""
    file = adapter / "adapter_config.json"
    said = ("peft_type", "r", "lora_alpha", "target_modules")
    keys = {key: value for key, value in json.loads(file.read_text()).items() if key in said}
    file.write_text(json.dumps(keys))
    want = LoraConfig(r=2, target_modules=["qkv_proj"], lora_dropout=0.0)
    assert load_adapter(adapter).lora == want


def test_missing_and_broken_files_are_named(adapter, tmp_path):
    with pytest.raises(UserError, match=r"nowhere is no adapter"):
        load_adapter(tmp_path / "nowhere")
    tensor_file = adapter / "adapter_model.safetensors"
    whole = tensor_file.read_bytes()
    for broken in (b"", b"\xff" * 64, whole[:-5], whole[:20]):
        tensor_file.write_bytes(broken)
        with pytest.raises(UserError, match=r"adapter_model\.safetensors is no intact safetensors"):
            load_adapter(adapter)
    tensor_file.unlink()
    with pytest.raises(UserError, match=r"has no adapter_model\.safetensors"):
        load_adapter(adapter)
    (adapter / "adapter_config.json").write_text("{")
    with pytest.raises(UserError, match=r"adapter_config\.json cannot be read as JSON"):
        load_adapter(adapter)


def test_an_old_pickle_is_not_read(adapter):
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(UserError, match=r"adapter_model\.bin is not read"):
        load_adapter(adapter)


def test_a_half_without_its_other_half_is_named(adapter):
    tensors = read_tensors(adapter)
    other = NAME.replace("lora_A", "lora_B")
    del tensors[other]
    write_tensors(adapter, tensors)
    with pytest.raises(UserError, match=f"{other} is missing"):
        load_adapter(adapter)


def test_unknown_tensors_and_dtypes_are_named(adapter):
    tensors = read_tensors(adapter)
    write_tensors(adapter, tensors | {"base_model.model.head.lora_E": tensors[NAME].clone()})
    with pytest.raises(UserError, match=r"base_model\.model\.head\.lora_E is no LoRA"):
        load_adapter(adapter)
    write_tensors(adapter, {name: t.int() for name, t in tensors.items()})
    with pytest.raises(UserError, match=f"{NAME} is I32"):
        load_adapter(adapter)
    for left in ({}, {"base_model.model.lm_head.weight": tensors[NAME].clone()}):
        write_tensors(adapter, left)
        with pytest.raises(UserError, match="holds no LoRA tensors"):
            load_adapter(adapter)
    head = ("lm_head.weight", "lm_head.base_layer.weight")
    twice = {f"base_model.model.{name}": tensors[NAME].clone() for name in head}
    write_tensors(adapter, tensors | twice)
    with pytest.raises(UserError, match=r"the base's lm_head\.weight is there twice"):
        load_adapter(adapter)


def test_a_key_that_is_there_twice_is_named(adapter):
    file = adapter / "adapter_config.json"
    for twice in ('"r": 2, ', '"alpha_pattern": {"a": 1, "a": 2}, '):
        whole = file.read_text()
        file.write_text(whole.replace("{", "{" + twice, 1))
        with pytest.raises(UserError, match=r"the name '(r|a)' is there twice in one object"):
            load_adapter(adapter)
        file.write_text(whole)


def test_what_float32_cannot_hold_is_infinite(adapter):
    tensors = {name: t.double() for name, t in read_tensors(adapter).items()}
    tensors[NAME][0, 2] = 1e39
    write_tensors(adapter, tensors)
    with pytest.raises(UserError, match=rf"{NAME} holds inf at \[0, 2\]"):
        load_adapter(adapter)


def test_shapes_that_are_no_pair_are_named(adapter):
    tensors = read_tensors(adapter)
    write_tensors(adapter, tensors | {NAME: tensors[NAME].reshape(3, 4)})
    with pytest.raises(UserError, match=f"{NAME} .* no pair of rank 2"):
        load_adapter(adapter)


def test_numbers_that_are_none_are_named_with_their_place(adapter):
    tensors = read_tensors(adapter)
    for number in (float("nan"), float("inf"), -float("inf")):
        tensors[NAME][1, 4] = number
        write_tensors(adapter, tensors)
        with pytest.raises(UserError, match=rf"the tensor {NAME} holds {number} at \[1, 4\]"):
            load_adapter(adapter)


@pytest.mark.parametrize(
    "path",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "model..proj",
        "a\\b",
        "a\0b",
        "..",
        "\uff41.proj",
        "x" * 200,
        ".".join(["a"] * 200),
    ],
)
def test_names_that_are_no_modules_path_are_refused(adapter, path):
    tensors = {n.replace(PATH, path): tensor for n, tensor in read_tensors(adapter).items()}
    write_tensors(adapter, tensors)
    with pytest.raises(UserError, match="is no LoRA A or B of a linear layer"):
        load_adapter(adapter)


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_pipe_or_a_folder_in_a_files_place_is_not_opened(adapter, file):
    (adapter / file).unlink()
    os.mkfifo(adapter / file)
    with pytest.raises(UserError, match=f"has no {file}"):
        load_adapter(adapter)
    (adapter / file).unlink()
    (adapter / file).mkdir()
    with pytest.raises(UserError, match=f"has no {file}"):
        load_adapter(adapter)


def test_an_empty_matrix_is_no_half_of_a_pair(adapter):
    tensors = read_tensors(adapter)
    write_tensors(adapter, tensors | {NAME: tensors[NAME][:, :0].clone()})
    with pytest.raises(UserError, match=f"{NAME} .*no pair of rank 2"):
        load_adapter(adapter)


def test_a_pickle_is_never_opened(adapter, tmp_path):
    class Planting:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "planted"),)

    (adapter / "adapter_model.safetensors").unlink()
    for name in ("adapter_model.bin", "adapter_model.pt", "adapter_model.safetensors"):
        (adapter / name).write_bytes(pickle.dumps({NAME: Planting()}))
        with pytest.raises(UserError, match=r"adapter_model\."):
            load_adapter(adapter)
    assert not (tmp_path / "planted").exists()
    pickle.loads(pickle.dumps(Planting()))
    assert (tmp_path / "planted").exists()  # as it would have been


def test_doras_magnitudes_fit_their_pairs(tmp_path):
    lora = LoraConfig(r=2, target_modules=["qkv_proj"], use_dora=True)
    for length in (4, 5):
        magnitudes = {PATH: mx.ones(length)}
        save_adapter(tmp_path, pairs(), lora, base_model_name_or_path="b", magnitudes=magnitudes)
        if length == 4:
            assert mx.array_equal(load_adapter(tmp_path).magnitudes[PATH], mx.ones(4))
    with pytest.raises(UserError, match=rf"{PATH}\.lora_magnitude_vector \(5,\) is no magnitude"):
        load_adapter(tmp_path)
    save_adapter(tmp_path, pairs(), lora, base_model_name_or_path="b")
    with pytest.raises(UserError, match=rf"{PATH}\.lora_magnitude_vector is missing"):
        load_adapter(tmp_path)
    name = f"base_model.model.{PATH}.lora_magnitude_vector"
    ones = torch.ones(4)
    write_tensors(tmp_path, read_tensors(tmp_path) | {name: ones, f"{name}.weight": ones.clone()})
    with pytest.raises(UserError, match=r"lora_magnitude_vector is there with and without \.wei"):
        load_adapter(tmp_path)
