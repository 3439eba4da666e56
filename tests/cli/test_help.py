"""Help: quick, complete, with examples that the program itself accepts."""

import os
import re
import resource
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import click
import pytest

from mlx_yoda import __version__
from mlx_yoda.cli.program import program
from mlx_yoda.config.schema import Config

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = program.list_commands(click.Context(program))
HEAVY = {"mlx", "mlx_lm", "numpy", "transformers", "datasets", "huggingface_hub", "rich", "torch"}


def command(name):
    return program.get_command(click.Context(program), name)


@pytest.mark.parametrize("args", [[], *[[name] for name in COMMANDS]], ids=str)
def test_help_loads_nothing_heavy(args):
    code = (
        "import sys; sys.argv = ['mlx-yoda', *sys.argv[1:]]\n"
        "import mlx_yoda.cli, atexit\n"
        "loaded = lambda: {name.split('.')[0] for name, module in sys.modules.items() if module}\n"
        "atexit.register(lambda: print(*loaded(), file=sys.stderr))\n"
        "mlx_yoda.cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *args, "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: mlx-yoda")
    assert "click" in done.stderr.split()
    assert not set(done.stderr.split()) & HEAVY


def test_help_is_quick(tmp_path):
    """At most four times the processor time of Python with click, on a machine of any speed."""
    compiled = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}
    compiled.pop("PYTHONDONTWRITEBYTECODE", None)

    def seconds(*args):
        begun = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, *args]
        subprocess.run(command, capture_output=True, check=True, cwd=ROOT, env=compiled)
        done = resource.getrusage(resource.RUSAGE_CHILDREN)
        return done.ru_utime + done.ru_stime - begun.ru_utime - begun.ru_stime

    def pair():
        return seconds("-m", "mlx_yoda", "--help"), seconds("-c", "import click")

    pair()  # which compiles them
    ours, python = map(min, zip(*(pair() for _ in range(8)), strict=True))
    assert ours < 4 * python


def test_the_program_lists_its_commands_in_order(invoke):
    shown = invoke("--help").stdout
    places = [re.search(rf"^  {name} ", shown, re.MULTILINE).start() for name in COMMANDS]
    assert places == sorted(places)
    assert "..." not in shown.split("Commands:")[1].split("Examples:")[0]


@pytest.mark.parametrize("option", ["--help", "-h"])
@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_examples(invoke, name, option):
    result = invoke(name, option)
    assert result.exit_code == 0
    assert f"  mlx-yoda {name}" in result.stdout.split("Examples:")[1]
    assert max(map(len, result.stdout.splitlines())) <= 100
    for param in command(name).params:
        if isinstance(param, click.Option):
            assert param.help, f"{param.name} has no help"


@pytest.mark.parametrize(
    "line",
    [
        line.split("|")[-1].split(">")[0].split("#")[0].strip()
        for source in [program, *map(command, COMMANDS)]
        for line in source.epilog.splitlines()
        if "mlx-yoda" in line
    ],
)
def test_the_examples_are_understood(line):
    _, name, *args = shlex.split(line)
    if "--help" not in args:
        command(name).make_context(name, args)


@pytest.mark.parametrize("args", [["--version"]])
def test_version(invoke, args):
    assert invoke(*args).stdout == f"mlx-yoda {__version__}\n"


def test_no_arguments_show_the_help(invoke):
    result = invoke()
    assert result.exit_code == 2
    assert "Usage: mlx-yoda" in result.output


def test_train_names_every_setting_and_settings_explains_it(invoke):
    brief, full = invoke("train", "--help").stdout, invoke("train", "--settings").stdout
    for section in fields(Config):
        for field in fields(section.type):
            short = {
                "model_name_or_path": "model",
                "quantization": "quantize",
                "dataset_name": "data",
            }
            name = short.get(field.name, field.name)
            option = f"--{name.replace('_', '-')}"
            assert re.search(rf"{field.name}\b|{option}\b", brief), field.name
            assert re.search(rf"^  {option}\b", full, re.MULTILINE), field.name
            assert " ".join(field.metadata["help"].split()[:3]) in " ".join(full.split())
    assert len(brief.splitlines()) < 60


def test_defaults_are_the_schema_s(invoke):
    full = " ".join(invoke("train", "--settings").stdout.split())
    config = Config()
    for shown in (
        f"Rank of the update. [{config.lora.r}]",
        f"Peak learning rate. [{config.train.learning_rate}]",
        f"[{', '.join(config.lora.target_modules)}]",
        "null keeps all. [2]",
        "Allow code that ships with the model to run. [false]",
    ):
        assert shown in full
