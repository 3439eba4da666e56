"""Signals to a real `mlx-yoda train`: exit codes, the command that goes on, and a full disk."""

import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mlx_yoda.train.checkpoint import checkpoints
from mlx_yoda.train.integrity import flaw
from tests.machine import PATIENCE

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def mlx_yoda() -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts `mlx-yoda train` with these arguments; no process outlives its test."""
    with ExitStack() as stack:

        def run(*args: object, **how) -> subprocess.Popen:
            process = subprocess.Popen(
                [sys.executable, "-m", "mlx_yoda", "train", *map(str, args)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                **how,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield run


@pytest.fixture
def start(mlx_yoda) -> Callable[..., subprocess.Popen]:
    """Starts a run that says each of its steps."""

    def run(folder: Path, data: Path, *more: object, **how) -> subprocess.Popen:
        args = ("--model", "demo", "--data", data, "--output-dir", folder, "--logging-steps", 1)
        return mlx_yoda(*args, *more, **how)

    return run


def read_until(process: subprocess.Popen, words: str) -> str:
    said = ""
    for line in process.stderr:
        said += line
        if words in line:
            return said
    raise AssertionError(said)


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_saves_and_says_how_to_go_on(mlx_yoda, start, data, tmp_path, signum, code):
    folder = tmp_path / "my run"
    # so many steps that it cannot end before the signal
    process = start(folder, data, "--max-steps", 20_000, "--save-strategy", "no")
    read_until(process, "step     3/20000")
    process.send_signal(signum)
    out, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (code, "")
    (checkpoint,) = checkpoints(folder)
    assert flaw(checkpoint) is None
    assert f"Stopped after step {checkpoint.name.split('-')[1]}. " in said
    words = shlex.split(said.splitlines()[-1])
    assert words[-4:] == ["train", "--config", str(folder / "config.yaml"), "--resume"]
    again = mlx_yoda(*words[-3:], "--eval-strategy", "no")
    read_until(again, f"step {int(checkpoint.name.split('-')[1]) + 1:5}/20000")


@pytest.mark.slow
def test_the_second_stops_at_once(start, data, tmp_path):
    """In the middle of a step of 4,000 micro-batches, before which there is a checkpoint."""
    folder, rows = tmp_path / "run", tmp_path / "rows.jsonl"
    rows.write_text((data / "train.jsonl").read_text() * 250)
    more = ("--save-strategy", "steps", "--save-steps", 1, "--per-device-train-batch-size", 1)
    start(folder, rows, *more, "--max-steps", 1).communicate(timeout=PATIENCE)
    long = ("--max-steps", 2, "--gradient-accumulation-steps", 4000, "--resume", "--force")
    process = start(folder, rows, *more, *long)
    read_until(process, "--force: total steps was 1 and is 2")
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert f"Stopped at once. The newest checkpoint is {folder / 'checkpoint-1'}" in said
    assert [path.name for path in checkpoints(folder)] == ["checkpoint-1"]
    assert flaw(folder / "checkpoint-1") is None
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_full_disk_is_told_and_leaves_nothing_broken(start, data, tmp_path):
    """No file may have more than 100 kB, and the adapter has more."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    folder = tmp_path / "run"
    more = ("--max-steps", 3, "--save-strategy", "steps", "--save-steps", 1)
    process = start(folder, data, *more, preexec_fn=limit)
    out, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (2, "")
    assert said.count("the checkpoint of step 1 cannot be written: File too large") == 1
    assert said.splitlines()[-1].startswith(f"error: the adapter of {folder} cannot be written: ")
    assert not checkpoints(folder)
    assert sorted(os.listdir(folder)) == [".mlx-yoda.json", "config.yaml", "metrics.jsonl"]
