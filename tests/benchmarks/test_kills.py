"""The kill harness: a few kills here, and that it would notice what must never be.

`python -m benchmarks.kills` makes fifty and more.
"""

import pytest

from benchmarks.kills import faults_of, measure
from mlx_yoda.config.parse import load_config
from mlx_yoda.recipes.finetune import finetune


@pytest.mark.slow
def test_killed_at_any_moment_nothing_is_lost(tmp_path):
    result = measure(kills=3, steps=20, seed=0, place=tmp_path)
    print(result.words())
    assert result.faults == []
    assert result.kills.total() >= 3
    assert result.finished >= 1


@pytest.fixture
def folder(tmp_path):
    """Of a finished run of four steps that kept two checkpoints."""
    settings = {
        "model.model_name_or_path": "demo",
        "data.dataset_name": "demo",
        "train.output_dir": tmp_path / "run",
        "train.max_steps": 4,
        "train.save_strategy": "steps",
        "train.save_steps": 1,
        "train.eval_strategy": "no",
    }
    config = load_config(None, [f"{key}={value}" for key, value in settings.items()])
    finetune(config, reporter=lambda event: None)
    return tmp_path / "run"


def test_a_folder_as_it_should_be_has_no_faults(folder):
    assert list(faults_of(folder, {1, 2, 3, 4})) == []


def test_what_must_never_be_is_noticed(folder):
    (folder / "checkpoint-4" / "optimizer.safetensors").write_bytes(b"half")
    assert "checkpoint-4 is broken: optimizer.safetensors has" in next(faults_of(folder, {4}))
    (folder / "checkpoint-4").rename(folder / "gone")
    assert list(faults_of(folder, {3, 4})) == ["checkpoint-4 was announced and is lost"]
    (folder / "adapter_model.safetensors").write_bytes(b"half")
    assert any("adapter_model.safetensors" in fault for fault in faults_of(folder, {3}))
    metrics = folder / "metrics.jsonl"
    metrics.write_text("{half\n" + metrics.read_text())
    assert any("metrics.jsonl has the line" in fault for fault in faults_of(folder, {3}))
