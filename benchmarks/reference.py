"""The README's reference of all commands, made from their `--help`.

python -m benchmarks.reference        # writes it between the README's markers
"""

from pathlib import Path

import click
from click.testing import CliRunner

from mlx_yoda.cli.program import program

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- reference -->\n", "<!-- /reference -->"
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


def updated(readme: str) -> str:
    """A README with the reference as it is now."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{reference()}{END}{after}"


if __name__ == "__main__":
    README.write_text(updated(README.read_text("utf-8")), encoding="utf-8")
