"""The README's reference is what `--help` says."""

import click

from benchmarks.reference import reference
from mlx_yoda.cli.program import program


def test_it_has_every_command_and_setting_s_name():
    written = reference()
    for name in program.list_commands(click.Context(program)):
        assert f"Usage: mlx-yoda {name} " in written
    assert "lora_alpha" in written
