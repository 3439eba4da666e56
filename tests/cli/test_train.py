"""`mlx-yoda train`, from the arguments to the last words."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_yoda.adapters.peft import load_adapter
from mlx_yoda.cli.command import program
from mlx_yoda.cli.summary import Story, summary
from mlx_yoda.config import Config
from mlx_yoda.config.parse import load_config
from mlx_yoda.report.events import Finished, Generated, Sample
from mlx_yoda.report.jsonl import read

ROOT = Path(__file__).resolve().parents[2]


def test_it_says_what_it_trains_before_it_does(trained):
    lines = trained.stderr.splitlines()
    assert lines[0].startswith("loading the base demo")
    first = next(line for line in lines if not line.endswith("…"))
    assert re.fullmatch(r"[\d,]+ trainable parameters of [\d.,]+( [MB])? \(\d+\.\d\d %\)", first)
    assert "16 training rows, 6 held out; 8 steps of 8 rows, 4 epochs" in trained.stderr


def test_logged_steps_evaluations_and_checkpoints_are_on_standard_error(trained):
    lines = trained.stderr.splitlines()
    assert [line.split("  ")[0] for line in lines if "  loss" in line] == ["step 4/8", "step 8/8"]
    assert sum("held-out loss" in line for line in lines) == 4
    assert any(line.endswith("checkpoint-8") for line in lines)
    assert all(line.strip() for line in lines)


def test_the_last_words_show_three_samples_and_the_scores(trained):
    words = trained.stdout
    events = [
        event for event in read(trained.folder / "metrics.jsonl") if event["event"] == "generate"
    ]
    before, after = events
    assert (before["when"], after["when"]) == ("before", "after")
    assert len(after["samples"]) == 3
    for old, new in zip(before["samples"], after["samples"], strict=True):
        assert (
            f"  {new['prompt']}\n    before: {old['answer']}\n    after:  {new['answer']}\n"
            in words
        )
        differs = new["answer"] != new["reference"]
        assert (f"    wanted: {new['reference']}" in words) == differs
    assert f"Exact match {before['exact_match']:.2f} → {after['exact_match']:.2f}" in words
    assert f"Wrote {trained.folder}" in words


def test_the_command_to_try_it_works(trained, invoke):
    line = trained.stdout.splitlines()[-1]
    words = shlex.split(line)
    again, args = words[: len(program())], words[len(program()) :]
    assert again == program()
    assert args[-1] == read(trained.folder / "metrics.jsonl")[1]["samples"][0]["prompt"]
    answer = invoke(*args)
    assert answer.exit_code == 0
    assert answer.stdout.strip()


def test_what_is_written_is_what_was_asked_for(trained):
    config = load_config(trained.folder / "config.yaml")
    assert config.train.learning_rate == 5e-3
    assert config.train.max_steps == 8
    assert load_adapter(trained.folder).lora.r == config.lora.r
    assert sorted(path.name for path in trained.folder.glob("checkpoint-*")) == [
        "checkpoint-4",
        "checkpoint-8",
    ]


@pytest.fixture
def short(data, tmp_path):
    """Arguments of a run of two steps."""
    folder = tmp_path / "out"
    args = ["train", "--model", "demo", "--data", data, "--output-dir", folder]
    return [*args, "--max-steps", 2, "--save-strategy", "steps", "--save-steps", 1]


def test_without_generated_answers_the_last_line_is_a_chat(invoke, short):
    result = invoke(*short)
    assert result.exit_code == 0
    words = result.stdout.splitlines()
    assert words[0].startswith("Wrote ")
    assert shlex.split(words[-1]) == [
        *(*program(), "chat", "--model", "demo", "--adapter", str(short[6]))
    ]


def test_quiet_says_nothing_but_the_last_words(invoke, short):
    result = invoke(*short, "--quiet")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.startswith("Wrote ")


def test_json_is_the_metrics_and_what_it_is_busy_with(invoke, short):
    result = invoke(*short, "--json")
    assert result.exit_code == 0
    assert result.stderr == ""
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert told[0]["event"] == "working"
    kept = [event for event in told if event["event"] != "working"]
    assert kept == read(short[6] / "metrics.jsonl")


def test_quiet_and_json_exclude_each_other(invoke, short):
    result = invoke(*short, "--quiet", "--json")
    assert result.exit_code == 2
    assert "exclude each other" in result.stderr


@pytest.mark.parametrize(
    ("installed", "called", "words"),
    [
        (True, "/x/bin/mlx-yoda", ["mlx-yoda"]),
        (False, ".venv/bin/mlx-yoda", [".venv/bin/mlx-yoda"]),
        (False, "/x/mlx_yoda/__main__.py", [sys.executable, "-m", "mlx_yoda"]),
    ],
)
def test_the_program_is_named_so_that_the_shell_finds_it(monkeypatch, installed, called, words):
    monkeypatch.setattr(shutil, "which", lambda name: f"/x/{name}" if installed else None)
    monkeypatch.setattr(sys, "argv", [called])
    assert program() == words


@pytest.mark.slow
def test_resume_takes_the_newest_checkpoint_or_the_one_named(invoke, short):
    assert invoke(*short).exit_code == 0
    folder = short[6]
    whole = (folder / "adapter_model.safetensors").read_bytes()
    for resume in (["--resume"], ["--resume", folder / "checkpoint-1"]):
        (folder / "adapter_model.safetensors").unlink()
        result = invoke(*short, *resume)
        assert result.exit_code == 0, result.stderr
        assert (folder / "adapter_model.safetensors").read_bytes() == whole


@pytest.mark.slow
def test_overwrite_starts_again(invoke, short):
    assert invoke(*short).exit_code == 0
    result = invoke(*short, "--overwrite", "--seed", 7)
    assert result.exit_code == 0
    assert load_config(short[6] / "config.yaml").train.seed == 7
    steps = [event for event in read(short[6] / "metrics.jsonl") if event["event"] == "finished"]
    assert len(steps) == 1


def test_ctrl_c_says_how_to_go_on(invoke, short, monkeypatch):
    from mlx_yoda.train import loop

    schedule = loop.learning_rate

    def interrupted(config, step, total_steps):
        if step == 1:
            raise KeyboardInterrupt
        return schedule(config, step, total_steps)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "learning_rate", interrupted)
        result = invoke(*short)
    assert result.exit_code == 130
    assert result.stdout == ""
    assert f"checkpoint is {short[6] / 'checkpoint-1'}; go on from it with:" in result.stderr
    assert invoke(*short, "--resume").exit_code == 0


def test_odd_characters_of_an_answer_stay_off_the_terminal():
    sample = Sample("a\nb", "c", "\x1b[2J" + "x" * 500)
    story = Story()
    story(Generated("after", 1, 0.0, 0.0, 1, (sample,)))
    story(Finished(1, 1.0, 1.0, 1, 1, "out"))
    words = summary(Config(), story)
    assert "  a b\n" in words
    assert "\x1b" not in words
    assert max(map(len, words.splitlines())) < 220


@pytest.mark.slow
def test_a_reader_of_json_that_goes_away_ends_the_run_with_a_word(short):
    """As `train --json | head -1` has it."""
    command = [sys.executable, "-m", "mlx_yoda", *map(str, short), "--json"]
    command += ["--max-steps", "500", "--save-strategy", "steps", "--save-steps", "1"]
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    with started:
        assert json.loads(started.stdout.readline())
        started.stdout.close()
        said = started.stderr.read()
    assert started.returncode == 1
    assert "Stopped: nobody reads standard output any more." in said
    assert "Traceback" not in said and "Exception" not in said


def test_a_base_in_a_folder_is_not_looked_for_on_the_hub(trained):
    assert "loading the base demo …" in trained.stderr
    assert "from the Hub" not in trained.stderr
