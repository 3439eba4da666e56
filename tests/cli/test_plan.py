"""`mlx-yoda plan`: the memory of a run before anything is loaded."""

import json
import re

import pytest
from click.testing import CliRunner

from benchmarks import macs
from mlx_yoda.cli.program import program

PHI3_MINI = {"model_type": "phi3", **macs.PHI3_MINI}
NORMS = 65 * 3072 * 2  # bytes
PACKED = 3_821_079_552 - 65 * 3072  # weights in matrices


@pytest.fixture
def phi3(tmp_path):
    """Phi-3-mini's config.json and nothing else."""
    (tmp_path / "config.json").write_text(json.dumps(PHI3_MINI))
    return tmp_path


def run(*args):
    return CliRunner().invoke(program, ["plan", *map(str, args)])


def test_a_config_is_enough(phi3):
    result = run("--model", phi3, "--memory", "16GB", "--set", "data.max_length=64", "--json")
    assert result.exit_code == 0, result.stderr
    plan = json.loads(result.stdout)
    assert plan["trainable_parameters"] == 12_582_912
    assert plan["memory"] == 16 * 10**9
    assert plan["chosen"]["rows"] == 4
    assert plan["chosen"]["footprint"] <= 0.9 * 16e9
    for row in plan["table"]:
        parts = ("weights", "adapter", "activations", "working", "cache")
        assert sum(row[part] for part in parts) == row["footprint"]
        update = row["adapter"] - row["activations"]
        assert row["working"] == max(row["loss"], row["layer"], update)
        assert row["weights"] == 2 * 3_821_079_552


def test_the_table_is_for_people(phi3):
    result = run("--model", phi3, "--memory", "24 GB")
    assert result.exit_code == 0
    assert "12,582,912 trainable parameters" in result.stdout
    chosen = result.stdout.partition("training takes")[2]
    for part in ("weights", "optimizer", "backward pass", "loss", "cache", "in all"):
        assert part in chosen


def test_frozen_lower_layers_keep_nothing(phi3):
    """The head, which has no layer's number, may be among the targets of a plan."""
    upper = json.dumps([str(i) for i in range(16, 32)])
    options = ("--model", phi3, "--memory", "64GB", "--json", "--set")
    targets = "lora.target_modules=[o_proj, lm_head]"
    whole = json.loads(run(*options, targets).stdout)
    layers = f"lora.layers_to_transform={upper.replace(chr(34), '')}"
    half = json.loads(run(*options, "lora.target_modules=[o_proj]", "--set", layers).stdout)
    for row, all_layers in zip(half["table"], whole["table"], strict=True):
        assert row["activations"] < 0.6 * all_layers["activations"]


def test_rows_that_can_be_read_are_planned_with():
    """The demo's data and tokenizer are here, so its rows are as long as they are."""
    plan = json.loads(run("--model", "demo", "--data", "demo", "--seconds", "0", "--json").stdout)
    assert (plan["rows"], plan["unread"], plan["time"]) == (720, None, None)
    far = "data.max_length=100000"  # no row is so long
    again = run("--model", "demo", "--data", "demo", "--seconds", "0", "--json", "--set", far)
    assert json.loads(again.stdout)["table"] == plan["table"]


def test_rows_that_cannot_be_read_are_as_long_as_they_may_be(phi3):
    result = run("--model", phi3, "--memory", "24GB")
    assert "rows are taken to be as long as data.max_length allows" in result.stdout
    assert "and no time is predicted:" in result.stdout
    assert "has no tokenizer" in result.stdout
    assert json.loads(run("--model", phi3, "--json").stdout)["time"] is None


@pytest.mark.slow
def test_time_is_that_of_all_steps():
    """720 rows in steps of 4 are 180 an epoch."""
    options = ("--model", "demo", "--data", "demo", "--seconds", "0.2")
    time = json.loads(run(*options, "--json").stdout)["time"]
    assert (time["steps_per_epoch"], time["total_steps"]) == (180, 1800)
    assert time["epoch"] == pytest.approx(180 * time["step"])
    assert time["run"] == pytest.approx(1800 * time["step"])
    assert time["speed"]["products"] > 1e6
    assert time["step"] > 4 * 20 * 1e5 / time["speed"]["products"]  # rows, tokens, weights
    shown = run(*options, "--set", "train.max_steps=90").stdout
    assert "GFLOP/s" in shown
    assert "90 steps, 0.5 epochs" in shown
    assert "1 step, " in run(*options, "--set", "train.max_steps=1").stdout
    assert "7 steps, 0.03889 epochs" in run(*options, "--set", "train.max_steps=7").stdout


def test_a_small_model_s_memory_is_told_in_megabytes():
    shown = run("--model", "demo", "--data", "demo", "--memory", "8GB").stdout
    assert re.search(r"in all +\d+\.\d MB\n", shown)
    assert not re.search(r" 0\.\d\d GB", shown)


def test_one_row_is_one_row():
    options = ("--set", "train.per_device_train_batch_size=1", "--memory", "8GB")
    shown = run("--model", "demo", "--data", "demo", *options).stdout
    assert "training takes 1 row at once and keeps" in shown


def test_another_machine_s_time_is_not_told(phi3):
    assert "GFLOP/s" not in run("--model", "demo", "--data", "demo", "--memory", "8GB").stdout


def test_what_does_not_fit_is_said(phi3):
    result = run("--model", phi3, "--memory", "4GB")
    assert result.exit_code == 0
    assert "set model.quantization={bits: 4}" in result.stdout


def test_quantising_on_load_counts(phi3):
    options = ("--model", phi3, "--memory", "8GB", "--set", "data.max_length=256", "--json")
    plan = json.loads(run(*options, "--quantize", "4").stdout)
    assert plan["table"][0]["weights"] == PACKED * 9 // 16 + NORMS
    assert plan["chosen"]["footprint"] <= 0.9 * 8e9
    small = json.loads(run(*options, "--quantize", "mxfp4").stdout)
    assert small["table"][0]["weights"] == PACKED * 17 // 32 + NORMS


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--memory", "much"], "write it as a size"),
        (["--memory", "0GB"], "write it as a size"),
        (["--seconds", "nan"], "nan is not a number of seconds"),
        (["--model", "no/where/at/all"], "there is no such folder"),
    ],
)
def test_bad_input_is_one_sentence(phi3, args, said):
    result = run("--model", phi3, *args)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_another_architecture_has_no_plan_yet(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(PHI3_MINI | {"model_type": "llama"}))
    result = run("--model", tmp_path)
    assert result.exit_code == 2
    assert "only Phi-3 has a memory plan" in result.stderr
