"""`mlx-yoda chat`."""

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import click

from mlx_yoda.cli.answering import answering, open_chosen, opening
from mlx_yoda.cli.command import own_stdout, remark, say
from mlx_yoda.cli.settings import Configured
from mlx_yoda.config.sampling import Sampling

if TYPE_CHECKING:
    from mlx_yoda.recipes.respond import Responder

_EXAMPLES = """\
mlx-yoda chat --adapter outputs/phi3-yoda
mlx-yoda chat --model microsoft/Phi-3-mini-4k-instruct --temperature 0.7
"""
_COMMANDS = "/reset forgets what was said, /exit or Ctrl-D ends, Ctrl-C stops an answer."


@click.command("chat", cls=Configured, epilog=_EXAMPLES)
@answering
def command(adapter: str | None, system: str | None, **sampling: Any) -> None:
    """Talk to a model, with or without an adapter.

    The model sees the whole conversation. /reset forgets it, /exit or Ctrl-D ends the program,
    and Ctrl-C stops an answer.
    """
    Sampling(**sampling)  # refuses options before anything is loaded
    responder = open_chosen(adapter)
    if _on_a_terminal():
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (its import gives `input` a line editor and a history)
        remark(_COMMANDS)
    said = opening(system)
    while (line := _ask()) is not None:
        match line.strip():
            case "":
                continue
            case "/exit":
                return
            case "/reset":
                said = opening(system)
                remark("Forgotten.")
            case words if words.startswith("/"):
                remark(f"There is no {words}; {_COMMANDS}")
            case words:
                said.append({"role": "user", "content": words})
                said.append({"role": "assistant", "content": _answer(responder, said, sampling)})


def _answer(responder: "Responder", said: list[dict[str, str]], sampling: dict[str, Any]) -> str:
    """Say the answer piece by piece; give back as much of it as was said."""
    pieces: list[str] = []
    try:
        for piece in responder.stream(said, note=remark, **sampling):
            say(piece, end="")
            pieces.append(piece)
    except KeyboardInterrupt:
        pass
    say()
    return "".join(pieces)


def _ask() -> str | None:
    """The next line, or None at the end of input."""
    prompt = "> " if _on_a_terminal() else ""
    try:
        with own_stdout():  # else Python's input would do without the line editor
            return input(prompt)
    except EOFError:
        if prompt:
            remark("")
        return None


def _on_a_terminal() -> bool:
    return sys.stdin.isatty()
