"""Several processes train one adapter: the same curve as one process, and they end together."""

import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mlx_yoda.config.parse import load_config
from mlx_yoda.recipes.finetune import finetune
from mlx_yoda.train.checkpoint import checkpoints
from mlx_yoda.train.integrity import flaw
from tests.machine import within
from tests.recipes.launch import Launched

WEIGHTS = "adapter_model.safetensors"
TRAIN_ROWS = 21  # so that the last step of an epoch has one row only
SETTINGS = {
    "model.model_name_or_path": "demo",
    "lora.lora_dropout": 0.2,
    "train.per_device_train_batch_size": 1,
    "train.gradient_accumulation_steps": 2,
    "train.max_steps": 8,
    "train.learning_rate": 1e-3,
    "train.logging_steps": 1,
    "train.eval_strategy": "steps",
    "train.eval_steps": 2,
    "train.save_strategy": "steps",
    "train.save_steps": 1,
    "train.save_total_limit": None,
    "train.compile": False,
    "train.generation_max_new_tokens": 8,
}

Train = Callable[..., Launched]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows of different lengths: 21 to train on and 5 to measure on."""
    folder = tmp_path_factory.mktemp("data")
    rows = [
        {"prompt": " ".join(["old"] * (1 + i % 5)), "completion": f"map {i} it is"}
        for i in range(TRAIN_ROWS + 5)
    ]
    for name, part in (("train", rows[:TRAIN_ROWS]), ("valid", rows[TRAIN_ROWS:])):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text(lines)
    return folder


@pytest.fixture(scope="module")
def train(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Train]:
    """Starts a run on several processes; none outlives the tests.

    Not all of them by `mlx.launch`, which keeps most of a core busy, but all as it does it.
    """
    with ExitStack() as stack:

        def start(
            count: int,
            output: Path,
            *args: str,
            by_launcher: bool = True,
            work: Path | None = None,
            **more: object,
        ) -> Launched:
            options = {**SETTINGS, "data.dataset_name": str(data), **more}
            options["train.output_dir"] = str(output)
            chosen = [f"--set={key}={json.dumps(value)}" for key, value in options.items()]
            folder = work or tmp_path_factory.mktemp("work") / "run"
            launched = Launched(count, ["train", *chosen, *args], folder, by_launcher)
            stack.callback(launched.close)
            return launched

        yield start


def alone(output: Path, data: Path, processes: int, resume: bool = False, **settings) -> list:
    """The same run on this process, with as many rows in a step; its events."""
    options = {**SETTINGS, "data.dataset_name": str(data), **settings}
    options |= {"train.output_dir": str(output)}
    options["train.per_device_train_batch_size"] *= processes
    events: list = []
    finetune(load_config(None, (), options), reporter=events.append, resume=resume)
    return events


def events_of(folder: Path, name: str) -> list[dict]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == name]


def assert_same_curve(one: Path, other: Path) -> None:
    for name, keys in (
        ("step", ("step", "loss", "grad_norm", "input_tokens", "supervised_tokens")),
        ("evaluate", ("step", "eval_loss", "eval_tokens")),
    ):
        pairs = list(zip(events_of(one, name), events_of(other, name), strict=True))
        assert pairs
        for mine, theirs in pairs:
            assert [mine[key] for key in keys] == pytest.approx(
                [theirs[key] for key in keys], rel=1e-5
            )
    mine, theirs = (load_file(folder / WEIGHTS) for folder in (one, other))
    for name, weight in mine.items():
        distance = np.linalg.norm(weight - theirs[name]) / np.linalg.norm(weight)
        assert distance < 1e-4, name


def bits(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*.safetensors"))
    }


@pytest.fixture(scope="module")
def two(train: Train, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a run of 8 steps on two processes, and what was said."""
    output = tmp_path_factory.mktemp("two") / "run"
    return output, train(2, output).succeed()


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_give_the_curve_of_one(train, two, data, tmp_path, count):
    output = two[0] if count == 2 else tmp_path / "run"
    if count == 3:
        train(3, output, by_launcher=False).succeed()
    alone(tmp_path / "alone", data, count)
    assert_same_curve(output, tmp_path / "alone")


def test_only_the_first_process_speaks(two):
    output, said = two
    for words in ("trainable parameters", "step 8/8", "step 8: saved", "Wrote "):
        assert said.count(words) == 1, said
    assert "8 steps of 4 rows on 2 processes, each in 2 micro-batches of 1" in said
    (started,) = events_of(output, "started")
    assert started["processes"] == 2


@pytest.mark.slow
def test_a_resumed_run_is_the_run_that_never_stopped(train, two, tmp_path):
    output = shutil.copytree(two[0], tmp_path / "run")
    for step in range(4, 9):
        shutil.rmtree(output / f"checkpoint-{step}")
    train(2, output, "--resume").succeed()
    assert bits(output) == bits(two[0])


@pytest.mark.slow
def test_one_process_goes_on_with_what_two_began(two, data, tmp_path):
    """And with the same settings: the checkpoint knows how many rows a step has."""
    output = shutil.copytree(two[0], tmp_path / "run")
    for step in range(4, 9):
        shutil.rmtree(output / f"checkpoint-{step}")
    events = alone(output, data, 1, resume=True)
    notes = [event.message for event in events if event.name == "note"]
    assert notes == [
        "the run began on 2 processes and goes on on one process: a step keeps its 4 rows"
    ]
    assert_same_curve(output, two[0])
    again = alone(output, data, 1, resume=True)  # from a checkpoint of one process
    assert any("a step keeps its 4 rows" in getattr(e, "message", "") for e in again)


LONG = {"train.max_steps": 20_000, "train.eval_strategy": "no", "train.save_steps": 5}


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_others_and_the_checkpoint_is_good(train, data, tmp_path, victim):
    run = train(2, tmp_path / "run", by_launcher=victim == 1, **LONG)
    run.until("step     7/20000")
    run.signal(victim, signal.SIGKILL)
    with within(30, time.monotonic):
        said = run.end()
    assert run.codes[victim] == -signal.SIGKILL and 1 - victim in run.codes
    assert said.count(f"error: process {victim} is gone, so the others end;") == 1
    assert "Traceback" not in said
    *_, newest = checkpoints(tmp_path / "run")
    assert flaw(newest) is None
    if victim:
        step = int(newest.name.split("-")[1])
        more = {**LONG, "train.max_steps": step + 1}
        options = {**SETTINGS, "data.dataset_name": str(data), **more}
        options["train.output_dir"] = str(tmp_path / "run")
        finetune(load_config(None, (), options), reporter=lambda _: None, resume=True, force=True)


@pytest.mark.slow
def test_a_signal_to_one_stops_all_after_the_same_step(train, tmp_path):
    run = train(2, tmp_path / "run", **LONG)
    run.until("step     7/20000")
    run.signal(1, signal.SIGINT)
    said = run.end()
    assert run.codes == {0: 130, 1: 130}
    *_, newest = checkpoints(tmp_path / "run")
    assert flaw(newest) is None
    assert said.count(f"Stopped after step {newest.name.split('-')[1]}. ") == 1
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_process_that_hangs_ends_the_others(train, tmp_path):
    run = train(2, tmp_path / "run", by_launcher=False, **LONG)
    run.until("step     7/20000")
    run.signal(1, signal.SIGSTOP)
    with within(30, time.monotonic):
        run.until("error: process 1 has not been heard of for 20 seconds, so the others end;")
    run.signal(1, signal.SIGKILL)
    run.end()
    assert run.codes == {0: 2, 1: -signal.SIGKILL}


@pytest.mark.slow
def test_what_one_process_refuses_is_said_once(train, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    run = train(2, tmp_path / "run", by_launcher=False)
    said = run.end()
    assert said.count("error: ") == 1
    assert f"error: the output folder {tmp_path / 'run'} is not empty" in said
    assert run.codes == {0: 2, 1: 2}
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_numbers_gone_wrong_end_all(train, tmp_path):
    run = train(2, tmp_path / "run", by_launcher=False, **{"train.learning_rate": 1e30})
    said = run.end()
    assert said.count("error: ") == 1
    assert "the third in a row, so the run stops" in said
    assert run.codes == {0: 2, 1: 2}


@pytest.mark.slow
def test_processes_with_other_rows_are_named(train, tmp_path):
    for rank in range(2):
        rows = [{"prompt": f"{rank} {i}", "completion": "it is"} for i in range(9)]
        file = tmp_path / "work" / str(rank) / "rows.jsonl"
        file.parent.mkdir(parents=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = train(
        *(2, tmp_path / "run"),
        by_launcher=False,
        work=tmp_path / "work",
        **{"data.dataset_name": "rows.jsonl"},
    )
    said = run.end()
    assert said.count("error: ") == 1
    assert "error: process 1 is not like process 0: the training rows is " in said
    assert run.codes == {0: 2, 1: 2}
    assert not (tmp_path / "run").exists()
