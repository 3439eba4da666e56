"""`mlx-yoda info`."""

import json
import shutil
import sys

import click

from mlx_yoda.cli.blas import prefer_openblas
from mlx_yoda.cli.command import Command, say

_COMPILERS = ("g++", "c++", "clang++")  # what MLX's CPU backend may compile kernels with
_EXAMPLES = """\
mlx-yoda info
mlx-yoda info --json
"""


@click.command(
    "info", cls=Command, epilog=_EXAMPLES, short_help="Show the machine and the versions."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(as_json: bool) -> None:
    """Show the machine and the versions: what a bug report needs."""
    from mlx_yoda.machine import machine, versions

    facts = machine()
    if sys.platform == "linux":
        facts["compiler"] = next(filter(None, map(shutil.which, _COMPILERS)), None)
        facts["openblas"] = prefer_openblas()
    facts |= versions()
    if as_json:
        say(json.dumps(facts, indent=2))
        return
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        say(f"{name.removesuffix('_bytes').replace('_', ' '):{width}}{_words(value)}")


def _words(value: str | int | bool | None) -> str:
    match value:
        case None:
            return "none"
        case True | False:
            return "yes" if value else "no"
        case int() if value > 1 << 20:  # of bytes, for nothing else is that many
            return f"{value / 1e9:.1f} GB"
        case _:
            return str(value)
