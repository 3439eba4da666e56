"""`from mlx_yoda import load, finetune, generate`: the same as the commands."""

import re
import subprocess
import sys
from inspect import signature
from pathlib import Path

import pytest

import mlx_yoda
from mlx_yoda import finetune, generate, load
from mlx_yoda.config.schema import Config
from mlx_yoda.errors import UserError
from mlx_yoda.recipes.respond import read_adapter

ROOT = Path(__file__).resolve().parents[1]
HELLO = "You must find the old map."


@pytest.mark.slow
def test_they_are_functions_whatever_has_been_imported_before():
    code = (
        "import mlx_yoda.generation, mlx_yoda.evaluate, mlx_yoda.recipes.finetune, mlx_yoda\n"
        "from mlx_yoda import *\n"
        "assert all(map(callable, (load, finetune, generate)))\n"
        "assert mlx_yoda.generate is generate\n"
        "assert {'load', 'finetune', 'generate'} <= {*dir(mlx_yoda)}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_nothing_else_is_there():
    with pytest.raises(AttributeError, match="no attribute 'train_it'"):
        _ = mlx_yoda.train_it


@pytest.mark.parametrize("function", [load, finetune, generate])
def test_all_is_typed_and_explained(function):
    for name, parameter in signature(function).parameters.items():
        assert parameter.annotation is not parameter.empty
        assert f"{name}:" in function.__doc__
    assert signature(function).return_annotation is not None


@pytest.mark.parametrize("quantization", [8, "mxfp4", {"bits": 8, "group_size": 32}])
def test_a_base_is_quantised_on_load(quantization):
    model = load("demo", quantization=quantization)
    assert model.base.config["quantization"]["bits"] == (4 if quantization == "mxfp4" else 8)
    assert generate(model, HELLO, max_tokens=4)


def test_a_quantisation_that_cannot_be_is_refused():
    with pytest.raises(UserError, match="needs bits 2, 3, 4, 5, 6 or 8, not 7"):
        load("demo", quantization=7)


@pytest.mark.slow
def test_a_model_answers_as_on_the_command_line(base_folder, make_adapter):
    from click.testing import CliRunner

    from mlx_yoda.cli.program import program

    def command(*args):
        options = ["--max-tokens", "12", *map(str, args), HELLO]
        return CliRunner().invoke(program, ["generate", *options]).stdout.removesuffix("\n")

    adapter = make_adapter()
    model = load(adapter=adapter)
    adapted = generate(model, HELLO, max_tokens=12)
    assert adapted == command("--adapter", adapter)
    messages = [{"role": "user", "content": HELLO}]
    assert generate(model, messages, max_tokens=12) == adapted
    with model.disable_adapter():
        alone = generate(model, HELLO, max_tokens=12)
    assert alone == command("--model", base_folder) != adapted
    sampled = generate(model, HELLO, max_tokens=12, temperature=2, seed=1, system="Hm.")
    options = ("--temperature", 2, "--seed", 1, "--system", "Hm.")
    assert sampled == command("--adapter", adapter, *options)


def test_a_run_is_the_command_s(base_folder, tmp_path):
    rows = [{"prompt": f"Say {i}.", "completion": f"{i}, I say."} for i in range(8)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(__import__("json").dumps, rows)))
    events = []
    run = finetune(
        model=str(base_folder),
        data=str(tmp_path / "rows.jsonl"),
        output_dir=str(tmp_path / "out"),
        max_steps=2,
        r=4,
        learning_rate=1e-3,
        reporter=events.append,
    )
    assert (run.steps, run.path) == (2, tmp_path / "out")
    assert read_adapter(str(run.path)).lora.r == 4
    assert events[-1].name == "finished"
    with pytest.raises(UserError, match="--overwrite"):
        finetune(run.path / "config.yaml", reporter=events.append)
    again = finetune(str(run.path / "config.yaml"), overwrite=True, reporter=events.append)
    assert again.train_loss == run.train_loss


def test_what_is_wrong_is_one_sentence():
    for call, words in [
        (lambda: load(), "a model, an adapter, or both"),
        (lambda: load("no/such/folder/here"), "no such folder"),
        (lambda: finetune(learning_rte=1), "did you mean .*learning_rate"),
        (lambda: finetune(learning_rate="fast"), "learning_rate must be"),
        (lambda: finetune("no-such.yaml"), "no configuration file"),
        (lambda: finetune(Config(), r=4), "not with a Config"),
    ]:
        with pytest.raises(UserError, match=words):
            call()


@pytest.mark.slow
def test_the_readme_s_example_runs_as_it_stands(tmp_path):
    readme = (ROOT / "README.md").read_text("utf-8")
    script = re.search(r"<!-- example: python -->\n```python\n(.*?)```", readme, re.DOTALL)[1]
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    first, adapted, alone = done.stdout.splitlines()
    assert first.endswith("adapter in outputs/from-python")
    promised = re.findall(r"# (\w.*)", script)
    assert [adapted, alone] == promised
