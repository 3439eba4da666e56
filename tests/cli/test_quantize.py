"""`--quantize` of every command that loads a base, and what is said where there is no room."""

import json

import pytest

from mlx_yoda.cli.program import program
from mlx_yoda.recipes import fitting
from mlx_yoda.train.step import Steps

PROMPTS = ["You must find the old map.", "She was very proud."]
WAYS = ["4", "{bits: 8, group_size: 32}", "mxfp4"]


@pytest.fixture(scope="module", params=WAYS)
def way(request, tmp_path_factory):
    """How to pack, and the demo packed so in a folder."""
    return request.param, tmp_path_factory.mktemp("converted") / "demo"


def test_generate_quantises_on_load_as_convert_does(invoke, adapter, way):
    packed, folder = way
    assert invoke("convert", "demo", folder, "--quantize", packed).exit_code == 0
    options = ["--adapter", adapter, "--max-tokens", 16, *PROMPTS]
    on_load = invoke("generate", "--model", "demo", "--quantize", packed, *options)
    assert on_load.exit_code == 0, on_load.stderr
    assert on_load.stdout == invoke("generate", "--model", folder, *options).stdout
    named = invoke("generate", "--quantize", packed, *options)  # the adapter names its base
    assert named.stdout == on_load.stdout


def test_chat_takes_it_too(invoke, adapter):
    result = invoke("chat", "--adapter", adapter, "--quantize", "4", stdin="I am here.\n")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip()


def test_evaluate_measures_the_packed_base(invoke, tmp_path):
    options = ["--data", "demo", "--limit", 4, "--max-tokens", 16, "--json"]
    args = ["evaluate", "--model", "demo", *options]
    whole = json.loads(invoke(*args).stdout)["base"]["loss"]
    packed = json.loads(invoke(*args, "--quantize", "4").stdout)["base"]["loss"]
    assert invoke("convert", "demo", tmp_path / "q", "--quantize", "4").exit_code == 0
    converted = invoke("evaluate", "--model", tmp_path / "q", *options).stdout
    assert packed == json.loads(converted)["base"]["loss"] != whole


@pytest.mark.parametrize("command", ["train", "plan", "generate", "chat", "serve", "evaluate"])
def test_every_command_with_a_base_has_the_option(command):
    names = [name for p in program.get_command(None, command).params for name in p.opts]
    assert "--quantize" in names


def test_a_trained_run_says_how_to_load_its_base_again(invoke, data, tmp_path):
    run = tmp_path / "run"
    options = ["--data", data, "--output-dir", run, "--max-steps", 1]
    result = invoke("train", "--model", "demo", "--quantize", "4", *options)
    assert result.exit_code == 0, result.stderr
    assert "--quantize 4" in result.stdout.partition("Try it:")[2]
    ask = ["generate", "--max-tokens", 4, "I am here."]
    for adapter in (run, run / "checkpoint-1"):
        said = invoke(*ask, "--adapter", adapter)
        assert said.exit_code == 0, said.stderr
        assert "--quantize 4 loads it so" in said.stderr
        for chosen in ("4", "null"):
            told = invoke(*ask, "--adapter", adapter, "--quantize", chosen).stderr
            assert "loads it so" not in told
        assert "loads it so" not in invoke(*ask, "--adapter", adapter, "--model", "demo").stderr
    (run / "config.yaml").write_text("model: [")
    assert invoke(*ask, "--adapter", run).exit_code == 0  # it is but a remark


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["generate", "--model", "demo", "--quantize", "7", "x"], "needs bits 2, 3, 4, 5, 6 or 8"),
        (
            ["generate", "--model", "demo", "--quantize", "q4", "x"],
            "must be a whole number, affine",
        ),
        (["convert", "demo", "{out}", "--quantize", "mxfp4", "--group-size", 64], "group_size 32"),
        (["convert", "demo", "{out}", "--group-size", 64], "goes with --quantize"),
        (["train", "--model", "demo", "--set", "model.load_in_4bit=true"], "write model.quanti"),
    ],
)
def test_what_cannot_be_is_one_sentence(invoke, tmp_path, args, said):
    result = invoke(*[str(arg).format(out=tmp_path / "out") for arg in args])
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_out_of_memory_is_one_sentence_and_the_checkpoints_stay(
    invoke, data, tmp_path, monkeypatch
):
    made, calls = fitting.make_steps, []

    def failing(*args, **options):
        steps = made(*args, **options)

        def accumulate(*args):
            calls.append(1)
            if len(calls) > 4:
                raise RuntimeError("[malloc] Unable to allocate 1000000000 bytes.")
            return steps.accumulate(*args)

        return Steps(steps.arrays, accumulate, steps.update)

    monkeypatch.setattr(fitting, "make_steps", failing)
    options = ["--auto-find-batch-size", "--no-auto-find-batch-size"]
    steps = ["--max-steps", 9, "--save-strategy", "steps", "--save-steps", 1]
    output = ["--output-dir", tmp_path / "run"]
    result = invoke("train", "--model", "demo", "--data", data, *output, *steps, options[1])
    assert result.exit_code == 2
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: there is not enough memory for 4 rows at once ([malloc]")
    assert "train.auto_find_batch_size=true" in last
    assert "Traceback" not in result.stderr
    assert (tmp_path / "run" / "checkpoint-4").is_dir()
    monkeypatch.setattr(fitting, "make_steps", made)
    config = tmp_path / "run" / "config.yaml"
    again = invoke("train", "--config", config, "--resume", "--set", "train.max_steps=9")
    assert again.exit_code == 0, again.stderr
