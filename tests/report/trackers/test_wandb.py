"""Weights & Biases without a network: its own file holds the run."""

import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlx_yoda.config.schema import Config, TrainConfig
from tests.machine import PATIENCE

wandb = pytest.importorskip("wandb")

BLOCK, HEADER = 32768, 7


def records(path):
    """What a .wandb file holds: LevelDB's log format with protobuf messages in it."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = path.read_bytes(), HEADER, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + HEADER])
        if at + HEADER + size > len(data):
            return
        whole += data[at + HEADER : at + HEADER + size]
        at += HEADER + size
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def finished(path):
    """All records; wandb's own process may still be writing when `finish` has returned."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = list(records(path))
        if any(record.HasField("exit") for record in found):
            return found
        time.sleep(0.05)
    raise AssertionError(f"{path} does not end")


@pytest.fixture(scope="module", autouse=True)
def service():
    """wandb's own process, which would run on until the last of all tests."""
    yield
    wandb.teardown()


@pytest.fixture
def alone(tmp_path, monkeypatch, offline):
    """A place of its own."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"MODE": "offline", "SILENT": "true", "DIR": str(tmp_path)}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return offline


@pytest.mark.slow
def test_its_file_holds_the_numbers_and_the_settings(events, tmp_path, alone):
    from mlx_yoda.report.trackers.wandb import open_tracker

    tell = open_tracker(Config(train=TrainConfig(output_dir="out/yoda", project="jedi")))
    for event in events:
        tell(event)
    (path,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    history, summary, runs = [], {}, []
    for record in finished(path):
        if record.HasField("history"):
            items = record.history.item
            row = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}
            history.append(row)
        if record.HasField("summary"):
            summary |= {i.key: json.loads(i.value_json) for i in record.summary.update}
        if record.HasField("run"):
            runs.append(record.run)
    losses = [(h["train/global_step"], h["train/loss"]) for h in history if "train/loss" in h]
    assert losses == [(10, 1.25), (20, 1.25)]
    evaluated = [(h["train/global_step"], h["eval/loss"]) for h in history if "eval/loss" in h]
    assert evaluated == [(20, 0.75)]
    assert summary["train_loss"] == 1.5
    assert (runs[0].project, runs[0].display_name) == ("jedi", "yoda")
    settings = {item.key: json.loads(item.value_json) for item in runs[0].config.update}
    assert settings["lora"]["r"] == 8
    assert alone == []


@pytest.mark.slow
def test_without_a_login_it_says_what_to_do(tmp_path):
    """In a process of its own, since wandb reads its environment once."""
    train = ["train", "--model", "demo", "--data", "demo", "--output-dir", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "mlx_yoda", *train, "--report-to", "wandb", "--max-steps", "1"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        env={
            **{"PATH": os.environ["PATH"], "HOME": str(tmp_path), "WANDB_DIR": str(tmp_path)},
            "WANDB_BASE_URL": "http://127.0.0.1:9",
        },
    )
    assert done.returncode == 2, done.stderr
    assert "log in with `wandb login`, or set the environment's WANDB_MODE" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
