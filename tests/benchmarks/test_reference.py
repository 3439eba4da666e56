"""The README's reference is what `--help` says."""

import click

from benchmarks.reference import BEGIN, END, README, updated
from mlx_yoda.cli.program import program


def test_the_readme_s_reference_is_current():
    readme = README.read_text("utf-8")
    assert readme.count(BEGIN) == readme.count(END) == 1
    assert readme == updated(readme), "run `python -m benchmarks.reference`"


def test_it_has_every_command_and_setting_s_name():
    reference = README.read_text("utf-8").partition(BEGIN)[2]
    for name in program.list_commands(click.Context(program)):
        assert f"Usage: mlx-yoda {name} " in reference
    assert "lora_alpha" in reference
