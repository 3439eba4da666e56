"""`mlx-yoda generate`."""

import sys
from pathlib import Path
from typing import Any

import click

from mlx_yoda.cli.answering import answering, open_chosen, opening
from mlx_yoda.cli.command import remark, say
from mlx_yoda.cli.settings import Configured
from mlx_yoda.config.sampling import Sampling
from mlx_yoda.errors import UserError

_EXAMPLES = """\
mlx-yoda generate --model demo --adapter outputs/demo "You must find the old map."
mlx-yoda generate --adapter outputs/phi3-yoda --temperature 0.7 --seed 1 "Where are you going?"
mlx-yoda generate --adapter outputs/phi3-yoda --file prompts.txt > answers.txt
echo "The force is strong." | mlx-yoda generate --adapter outputs/phi3-yoda
"""


@click.command(
    "generate", cls=Configured, epilog=_EXAMPLES, short_help="Answer one or many prompts."
)
@click.argument("prompts", nargs=-1, metavar="[PROMPT]...")
@answering
@click.option(
    "--file", type=click.Path(path_type=Path), metavar="FILE", help="Read prompts, one a line."
)
def command(
    prompts: tuple[str, ...],
    file: Path | None,
    adapter: str | None,
    system: str | None,
    **sampling: Any,
) -> None:
    """Answer prompts: those given, those in a file, or those on standard input, one a line.

    Standard output gets the answers and nothing else, as they come, with a line break after
    each. Each prompt is answered by itself, with the same seed. Without --model the base is the
    one that the adapter names.
    """
    Sampling(**sampling)  # refuses options before anything is loaded
    asked = _prompts(prompts, file)
    responder = open_chosen(adapter)
    for prompt in asked:
        messages = [*opening(system), {"role": "user", "content": prompt}]
        for piece in responder.stream(messages, note=remark, **sampling):
            say(piece, end="")
        say()


def _prompts(given: tuple[str, ...], file: Path | None) -> list[str]:
    """What to answer; blank lines ask nothing."""
    if given and file:
        raise click.UsageError("Give prompts as arguments or with --file, not both.")
    if given:
        lines, place = list(given), "the command line"
    elif file:
        lines, place = _read(file), str(file)
    else:
        if sys.stdin.isatty():
            raise click.UsageError("There is no prompt.")
        lines, place = sys.stdin.read().splitlines(), "standard input"
    asked = [line for line in lines if line.strip()]
    if not asked:
        raise UserError(f"there is no prompt in {place}.")
    return asked


def _read(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UserError(f"{file} is no text in UTF-8.") from None
