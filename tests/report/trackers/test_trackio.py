"""trackio's own database holds the run, and it stays on this machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("trackio")

# In a process of its own, since trackio reads its folder's name when it is imported.
SCRIPT = """
import json, socket, sys

def refuse(self, address):
    raise OSError(f"there is no network in tests: {address}")

connect, socket.socket.connect = socket.socket.connect, refuse
from mlx_yoda.config.schema import Config, TrainConfig
from mlx_yoda.report.events import Evaluated, Finished
from mlx_yoda.report.trackers.trackio import open_tracker

tell = open_tracker(Config(train=TrainConfig(output_dir="out/yoda", project="jedi")))
for step in (10, 20):
    tell(Evaluated(step, step / 10, 1 / step, 2.0, 9))
tell(Finished(20, 1.5, 12.0, 4000, 2000, "out"))
from trackio.sqlite_storage import SQLiteStorage

print("FOUND", json.dumps([SQLiteStorage.get_logs("jedi", "yoda"),
    SQLiteStorage.get_run_config("jedi", "yoda")], default=str))
"""


@pytest.mark.slow
def test_its_database_holds_the_numbers_and_the_settings(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        env={"TRACKIO_DIR": str(tmp_path), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    found = next(line for line in done.stdout.splitlines() if line.startswith("FOUND"))
    rows, settings = json.loads(found.removeprefix("FOUND"))
    losses = [(row["step"], row["eval/loss"]) for row in rows if "eval/loss" in row]
    assert losses == [(10, 0.1), (20, 0.05)]
    assert [row["train/train_loss"] for row in rows if "train/train_loss" in row] == [1.5]
    assert settings["lora"]["r"] == 8
    assert list(tmp_path.glob("*.db"))
