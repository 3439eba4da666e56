"""Training on a base that is quantised on load: the run of a converted folder, to the bit."""

import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from safetensors.numpy import load_file

from mlx_yoda.config.parse import load_config
from mlx_yoda.config.schema import ModelConfig
from mlx_yoda.errors import UserError
from mlx_yoda.model.convert import convert
from mlx_yoda.model.load import load
from mlx_yoda.recipes.export import export
from mlx_yoda.recipes.finetune import finetune
from mlx_yoda.recipes.respond import open_responder
from mlx_yoda.recipes.sizing import check_base
from mlx_yoda.report.jsonl import read

FOUR_BITS = "model.quantization={bits: 4, group_size: 32}"
WAYS = {
    "LoRA": ("{bits: 4, group_size: 32}", []),
    "recomputed": ("{bits: 8, group_size: 32}", ["train.gradient_checkpointing=true"]),
    "mxfp4": ("mxfp4", ["train.gradient_checkpointing=true"]),
    "DoRA": ("{bits: 4, group_size: 32}", ["lora.use_dora=true"]),
    "DoRA, mxfp4": ("mxfp4", ["lora.use_dora=true"]),
    "PiSSA": ("{bits: 4, group_size: 32}", ["lora.init_lora_weights=pissa"]),
    "half": ("{bits: 4, group_size: 32}", ["model.dtype=bfloat16"]),
}


def run(config, **how):
    finetune(config, reporter=lambda event: None, **how)


def adapter(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def whole(configure, tmp_path_factory) -> Path:
    """A run of 6 steps on a base of 4 bits."""
    output = tmp_path_factory.mktemp("whole") / "run"
    run(configure(output, FOUR_BITS))
    return output


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_it_is_the_run_of_a_converted_folder(configure, base_folder, tmp_path, way):
    packed, settings = WAYS[way]
    settings = [*settings, "train.max_steps=3", "train.save_strategy='no'"]
    on_load = configure(tmp_path / "on-load", f"model.quantization={packed}", *settings)
    convert(
        base_folder,
        tmp_path / "base",
        quantization=on_load.model.quantization,
        dtype=on_load.model.dtype,
    )
    run(on_load)
    run(configure(tmp_path / "converted", *settings, base=tmp_path / "base"))
    ours, theirs = adapter(tmp_path / "on-load"), adapter(tmp_path / "converted")
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        assert np.array_equal(weight, theirs[name]), name
        assert np.isfinite(weight).all()
    assert any(np.abs(weight).max() > 0 for name, weight in ours.items() if "lora_B" in name)


def test_the_run_says_its_bits_and_names_the_base_it_was_made_from(whole, base_folder):
    started = next(e for e in read(whole / "metrics.jsonl") if e["event"] == "started")
    assert started["base_bits"] == 4
    assert str(base_folder) in (whole / "adapter_config.json").read_text()
    assert "the base was quantised to 4 bits" in (whole / "README.md").read_text()
    config = load_config(whole / "config.yaml")
    assert (config.model.quantization.bits, config.model.quantization.group_size) == (4, 32)


def test_it_resumes_to_the_same_bits(configure, whole, tmp_path):
    output = Path(shutil.copytree(whole, tmp_path / "run"))
    for step in (4, 5, 6):
        shutil.rmtree(output / f"checkpoint-{step}")
    run(configure(output, FOUR_BITS), resume=True)
    ours, theirs = adapter(output), adapter(whole)
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (["model.quantization={bits: 8, group_size: 32}"], "model.quantization was .*4.* and is"),
        ([], "model.quantization was .*4.* and is None"),
    ],
)
def test_other_bits_are_another_run(configure, whole, tmp_path, other, said):
    output = Path(shutil.copytree(whole, tmp_path / "run"))
    with pytest.raises(UserError, match=said) as error:
        run(configure(output, *other), resume=True)
    assert "config.json" not in str(error.value)  # one difference is said once


def test_the_same_bits_said_otherwise_are_the_same_run(configure, whole, tmp_path):
    output = Path(shutil.copytree(whole, tmp_path / "run"))
    run(configure(output, "model.quantization={group_size: 32}"), resume=True)


def test_merging_takes_the_weights_as_they_are_stored(whole, base_folder, tmp_path):
    model = ModelConfig(model_name_or_path=str(base_folder))
    export(str(whole), tmp_path / "merged", "merged", model, base_of_adapter=True)
    merged = load(tmp_path / "merged")
    assert "quantization" not in merged.config
    tokens = mx.array([[5, 17, 40, 3, 99]])
    whole_weights = open_responder(model, str(whole)).base.model(tokens)
    assert mx.allclose(merged.model(tokens), whole_weights, rtol=1e-4, atol=1e-4)
    names = [name for name, _ in tree_flatten(merged.model.parameters())]
    assert not any("scales" in name for name in names)


def test_the_adapter_answers_on_the_bits_that_it_was_trained_on(whole, base_folder, tmp_path):
    config = load_config(whole / "config.yaml")
    convert(base_folder, tmp_path / "base", quantization=config.model.quantization)
    tokens = mx.array([[5, 17, 40, 3, 99]])
    on_load = open_responder(config.model, str(whole)).base.model(tokens)
    converted = ModelConfig(model_name_or_path=str(tmp_path / "base"))
    assert mx.array_equal(on_load, open_responder(converted, str(whole)).base.model(tokens))


def test_a_base_that_does_not_fit_is_refused_before_it_is_loaded(
    configure, base_folder, tmp_path, monkeypatch
):
    loaded = []
    monkeypatch.setattr("mlx_yoda.recipes.sizing.machine_memory", lambda: 300_000)
    monkeypatch.setattr("mlx_yoda.recipes.start.load_base", loaded.append)
    config = configure(tmp_path / "run")
    with pytest.raises(UserError, match=r"before any row .* set model.quantization=\{bits: 4\}"):
        run(config)
    assert not loaded
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr("mlx_yoda.recipes.sizing.machine_memory", lambda: 10**9)
    check_base(config)


def test_a_quantised_folder_is_not_quantised_again(configure, base_folder, tmp_path):
    first = configure(tmp_path / "run", FOUR_BITS)
    convert(base_folder, tmp_path / "base", quantization=first.model.quantization)
    with pytest.raises(UserError, match=r"is quantised already: leave model.quantization out"):
        run(configure(tmp_path / "run", FOUR_BITS, base=tmp_path / "base"))
    assert not (tmp_path / "run").exists()
