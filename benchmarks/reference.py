"""The README's reference of all commands, made from their `--help`.

python -m benchmarks.reference        # writes it between the README's markers
"""

import click
from click.testing import CliRunner

from benchmarks.readme import write
from mlx_yoda.cli.program import program

_WIDTH = 100


def reference() -> str:
    """Every command's help, folded away, in Markdown."""
    context = click.Context(program)
    sections = []
    for name in program.list_commands(context):
        command = program.get_command(context, name)
        assert command is not None
        said = CliRunner().invoke(program, [name, "--help"], terminal_width=_WIDTH)
        title = f"<code>mlx-yoda {name}</code>: {command.get_short_help_str(80)}"
        text = f"```text\n{said.stdout.strip()}\n```"
        sections.append(f"<details>\n<summary>{title}</summary>\n\n{text}\n\n</details>\n")
    return "\n".join(sections)


if __name__ == "__main__":
    write("reference", reference())
