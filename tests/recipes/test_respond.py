"""A base and an adapter become something that answers."""

import json

import mlx.core as mx
import pytest

from benchmarks.random_phi3 import write_random_phi3
from mlx_yoda.adapters.peft import save_adapter
from mlx_yoda.config.schema import LoraConfig, ModelConfig
from mlx_yoda.errors import UserError
from mlx_yoda.generation import answer
from mlx_yoda.lora.inject import disabled, inject, lora_layers
from mlx_yoda.model.load import load, resolve
from mlx_yoda.recipes import respond
from mlx_yoda.recipes.finetune import finetune
from mlx_yoda.recipes.identity import base_name, public_name
from mlx_yoda.recipes.respond import (
    Responder,
    another_base,
    interrupted,
    open_responder,
    read_adapter,
)

GONE = "/nowhere/.venv/lib/python3.11/site-packages/mlx_yoda/demo/model"
HELLO = [{"role": "user", "content": "You must find the old map."}]


@pytest.fixture
def write_adapter(base_folder, tmp_path):
    """Writes an adapter that changes the answers; `base` is the model it names."""

    def write(base=str(base_folder), **settings):
        lora = LoraConfig(r=4, target_modules=["qkv_proj", "down_proj"], **settings)
        model = load(base_folder).model
        for layer in inject(model, lora, mx.random.key(0)).values():
            layer.lora_B = mx.random.normal(layer.lora_B.shape, key=mx.random.key(1))
        tensors = {path: (m.lora_A, m.lora_B) for path, m in lora_layers(model).items()}
        save_adapter(tmp_path / "adapter", tensors, lora, base_model_name_or_path=base)
        return tmp_path / "adapter"

    return write


def said(responder, **sampling):
    return "".join(responder.stream(HELLO, max_tokens=12, **sampling))


@pytest.mark.slow
def test_a_run_that_was_interrupted_answers_with_its_newest_intact_checkpoint(configure, tmp_path):
    folder = tmp_path / "run"
    finetune(configure(folder), reporter=lambda event: None)
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / file).unlink()
    assert "checkpoint-6" in interrupted(str(folder))
    (folder / "checkpoint-6" / "adapter_model.safetensors").write_bytes(b"half")
    assert interrupted(str(folder)).endswith(f"newest checkpoint, {folder / 'checkpoint-5'}.")
    taken, named = read_adapter(str(folder)), read_adapter(str(folder / "checkpoint-5"))
    for path, pair in named.tensors.items():
        assert all(mx.array_equal(a, b) for a, b in zip(pair, taken.tensors[path], strict=True))
    assert interrupted(str(folder / "checkpoint-5")) is None
    for checkpoint in folder.glob("checkpoint-*"):
        (checkpoint / "adapter_model.safetensors").unlink()
    with pytest.raises(UserError, match="its checkpoints are corrupt"):
        read_adapter(str(folder))


def test_the_base_alone_answers_as_it_is(base_folder):
    responder = open_responder(ModelConfig(model_name_or_path=str(base_folder)))
    base = load(base_folder)
    assert responder.adapter is None
    assert said(responder) == answer(base.model, base.tokenizer, HELLO, max_tokens=12)
    assert not lora_layers(responder.base.model)


def test_an_adapter_changes_the_answer_and_the_base_is_still_there(base_folder, write_adapter):
    adapter = write_adapter()
    responder = open_responder(ModelConfig(model_name_or_path=str(base_folder)), str(adapter))
    adapted = said(responder)
    with disabled(responder.base.model):
        alone = said(responder)
    assert alone == said(open_responder(ModelConfig(model_name_or_path=str(base_folder))))
    assert alone != adapted


def test_the_adapter_s_base_is_taken_if_wanted(base_folder, write_adapter):
    adapter = str(write_adapter())
    missing = ModelConfig(model_name_or_path="/nowhere", dtype="float16")
    responder = open_responder(missing, adapter, base_of_adapter=True)
    assert responder.base.name == str(base_folder)
    assert responder.base.model.lm_head.weight.dtype == mx.float16
    with pytest.raises(UserError, match="/nowhere"):
        open_responder(missing, adapter)


def test_rank_alpha_and_rslora_of_the_adapter_count(base_folder, write_adapter):
    model = ModelConfig(model_name_or_path=str(base_folder))
    settings = ({}, {"lora_alpha": 64}, {"use_rslora": True}, {"alpha_pattern": {"down_proj": 99}})
    scales = []
    for setting in settings:
        layers = lora_layers(open_responder(model, str(write_adapter(**setting))).base.model)
        scales.append(tuple(layer.scale for layer in layers.values()))
    assert len(set(scales)) == len(settings)


def test_a_base_of_another_width_is_refused_by_tensor(base_folder, write_adapter, tmp_path):
    config = json.loads((base_folder / "config.json").read_text()) | {"hidden_size": 64}
    write_random_phi3(tmp_path / "wide", config, tokenizer=base_folder)
    wide = ModelConfig(model_name_or_path=str(tmp_path / "wide"))
    message = r"for model\.layers\.0\.\S+ do not fit"
    with pytest.raises(UserError, match=message):
        open_responder(wide, str(write_adapter()))


def test_a_base_of_another_size_is_refused_by_tensor(write_adapter):
    with pytest.raises(UserError, match=r"for model\.layers\.0\..* do not fit the model's"):
        open_responder(ModelConfig(model_name_or_path="demo"), str(write_adapter()))


@pytest.mark.parametrize(
    ("base", "message"), [("/nowhere/phi3", "not here: give --model"), ("", "does not say which")]
)
def test_a_base_that_cannot_be_found_is_explained(write_adapter, base, message):
    with pytest.raises(UserError, match=message):
        open_responder(ModelConfig(), str(write_adapter(base=base)), base_of_adapter=True)


def test_an_adapter_on_the_hub_is_fetched_without_the_rest(write_adapter, monkeypatch):
    folder, asked = write_adapter(), []

    def fetched(name, revision, patterns):
        asked.append((name, revision, patterns))
        return folder

    monkeypatch.setattr(respond, "fetch", fetched)
    assert read_adapter("owner/yoda").lora.r == 4
    assert asked == [
        (
            "owner/yoda",
            None,
            ["adapter_config.json", "adapter_model.safetensors", "adapters.safetensors"],
        )
    ]


@pytest.mark.parametrize(
    "base",
    [
        "../../secret", "models/../../x", "..", "~root/x", "https://example.com/x", "file:///etc",
        "a\\b", "a\0b", "a\nb", "\x1b[2J", "x" * 600,
    ],
)  # fmt: skip
def test_a_base_that_only_looks_like_a_name_is_neither_opened_nor_fetched(
    write_adapter, monkeypatch, base
):
    adapter = str(write_adapter(base=base))
    monkeypatch.setattr(respond, "load", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(
        UserError, match="which is no Hub id and no plain folder: give --model"
    ) as e:
        open_responder(ModelConfig(), adapter, base_of_adapter=True)
    assert str(e.value).isprintable()
    assert len(str(e.value)) < len(adapter) + 250


def test_an_adapter_cannot_choose_whose_code_is_trusted(write_adapter, monkeypatch):
    adapter = str(write_adapter())
    monkeypatch.setattr(respond, "load", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(UserError, match="is not enough to run that model's own code: give --model"):
        open_responder(ModelConfig(trust_remote_code=True), adapter, base_of_adapter=True)


def test_another_base_than_the_one_named_is_remarked_upon(base_folder, write_adapter):
    model = ModelConfig(model_name_or_path=str(base_folder))
    assert another_base(open_responder(model)) is None
    assert another_base(open_responder(model, str(write_adapter()))) is None
    note = another_base(open_responder(model, str(write_adapter(base="owner/other"))))
    assert "names owner/other as its base; it answers on " in note


def test_the_demo_is_known_by_its_name_and_by_its_folder():
    for trained_on in ("demo", str(resolve("demo")), GONE):
        responder = Responder(load("demo"), "an-adapter", trained_on=trained_on)
        assert another_base(responder) is None


def test_an_adapter_made_by_an_installation_that_is_gone_still_finds_the_demo(tmp_path):
    base, lora = load("demo"), LoraConfig(r=2)
    tensors = {
        path: (m.lora_A, m.lora_B) for path, m in inject(base.model, lora, mx.random.key(0)).items()
    }
    save_adapter(tmp_path, tensors, lora, base_model_name_or_path=GONE)
    responder = open_responder(ModelConfig(), str(tmp_path), base_of_adapter=True)
    assert responder.base.path == resolve("demo")


def test_an_adapter_names_the_demo_not_where_this_installation_keeps_it():
    for name in ("demo", resolve("demo")):
        assert base_name(load(name)) == public_name(load(name)) == "demo"
