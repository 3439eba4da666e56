"""What becomes of a run that cannot write: it goes on where it can, and nothing is corrupt."""

import errno
import shutil

import pytest

from mlx_yoda import files
from mlx_yoda.adapters.peft import load_adapter
from mlx_yoda.errors import UserError
from mlx_yoda.recipes.finetune import finetune
from mlx_yoda.recipes.overwriting import WRITTEN_FILE
from mlx_yoda.report.events import Noted, Saved, Stepped
from mlx_yoda.report.jsonl import read
from mlx_yoda.train.integrity import flaw

FULL = OSError(errno.ENOSPC, "No space left on device", "optimizer.safetensors")


@pytest.fixture
def full_disk(monkeypatch):
    """Sets whether the disk is full: then the first small file of a checkpoint is the last."""
    write, disk = files.write_bytes, {"full": False}

    def limited(path, data):
        if disk["full"] and path.name != "adapter_config.json":
            raise FULL
        write(path, data)

    monkeypatch.setattr(files, "write_bytes", limited)
    return disk


def run(config, at_step=lambda step: None, **how):
    events = []

    def report(event):
        events.append(event)
        if isinstance(event, Stepped):
            at_step(event.step)

    finetune(config, reporter=report, **how)
    return events


def intact(folder):
    """Every checkpoint is whole, and there is nothing but checkpoints and what runs write."""
    found = sorted(folder.glob("checkpoint-*"))
    assert all(flaw(path) is None for path in found)
    assert [path.name for path in folder.glob(".*")] in ([], [WRITTEN_FILE])
    return [path.name for path in found]


@pytest.fixture(scope="module")
def weights(configure, tmp_path_factory):
    """Of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(configure(folder))
    return (folder / "adapter_model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_failed_save_is_told_and_tried_again(configure, tmp_path, full_disk, weights):
    """The disk is full for steps 2 to 4, and a checkpoint is due at every second step."""
    folder = tmp_path / "run"
    events = run(
        configure(folder, "train.save_steps=2"),
        lambda step: full_disk.update(full=step in (2, 3, 4)),
    )
    said = [event.message for event in events if isinstance(event, Noted)]
    assert said == [
        "the checkpoint of step 2 cannot be written: No space left on device "
        "(optimizer.safetensors); training goes on, and each step tries again"
    ]
    assert [event.step for event in events if isinstance(event, Saved)] == [5, 6]
    assert intact(folder) == ["checkpoint-5", "checkpoint-6"]
    assert (folder / "adapter_model.safetensors").read_bytes() == weights


def test_it_ends_the_run_where_that_is_asked_for(configure, tmp_path, full_disk, weights):
    config = configure(tmp_path / "run", "train.stop_on_save_error=true")
    with pytest.raises(UserError, match=r"of step 3 cannot be written: No space left.*--resume"):
        run(config, lambda step: full_disk.update(full=step >= 3))
    assert intact(tmp_path / "run") == ["checkpoint-1", "checkpoint-2"]
    full_disk["full"] = False
    run(config, resume=True)
    assert (tmp_path / "run" / "adapter_model.safetensors").read_bytes() == weights


def test_a_disk_full_to_the_end_says_what_is_left(configure, tmp_path, full_disk, weights):
    config = configure(tmp_path / "run")
    with pytest.raises(UserError, match=r"adapter .*cannot be written: No space left.*--resume"):
        run(config, lambda step: full_disk.update(full=step >= 5))
    assert "checkpoint-4" in intact(tmp_path / "run")
    full_disk["full"] = False
    run(config, resume=True)
    assert (tmp_path / "run" / "adapter_model.safetensors").read_bytes() == weights


@pytest.mark.slow
def test_a_folder_that_is_removed_is_made_again(configure, tmp_path, weights):
    folder = tmp_path / "run"
    events = run(configure(folder), lambda step: step == 3 and shutil.rmtree(folder))
    assert any("has lost its config.yaml" in e.message for e in events if isinstance(e, Noted))
    assert intact(folder) == [f"checkpoint-{step}" for step in (3, 4, 5, 6)]
    assert (folder / "config.yaml").exists()
    assert read(folder / "metrics.jsonl")[-1]["event"] == "finished"
    assert (folder / "adapter_model.safetensors").read_bytes() == weights
    assert load_adapter(folder).tensors


@pytest.mark.slow
def test_old_checkpoints_that_cannot_be_removed_are_told(configure, tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(files, "remove_directory", refuse)
    events = run(configure(tmp_path / "run", "train.save_total_limit=5"))
    said = [event.message for event in events if isinstance(event, Noted)]
    assert len(said) == 1 and "checkpoint cannot be removed: Permission denied" in said[0]
    assert len(intact(tmp_path / "run")) == 6


def test_a_folder_that_may_not_be_written_to_is_refused_before_anything(
    configure, tmp_path, monkeypatch
):
    """Before the model is loaded; asked of the nearest folder that exists, as root may anything."""
    from mlx_yoda.recipes import output

    monkeypatch.setattr(output.os, "access", lambda path, how: path != tmp_path)
    with pytest.raises(UserError, match="may not be written to"):
        run(configure(tmp_path / "a" / "b"))
    assert not list(tmp_path.iterdir())
