"""The program `mlx-yoda`: its commands, and what becomes of every error."""

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from mlx_yoda import __version__
from mlx_yoda.cli.command import Sectioned
from mlx_yoda.cli.streams import redacted_streams
from mlx_yoda.errors import SaidAlready, UserError, first_line
from mlx_yoda.kernels import SWITCH, is_compiler_s
from mlx_yoda.launcher import processes, rank
from mlx_yoda.secrets import redact

_COMMANDS = (
    "train", "plan", "generate", "chat", "serve", "evaluate", "report", "convert", "export", "push",
    "info", "completion",
)  # fmt: skip
_TOGETHER = ("train", "-h", "--help", "--version")  # what several processes may run
_WRONG_INPUT = 2
_LONGEST = 1500  # characters of a message; more would only hide what it says
_INTERRUPTED = 128 + signal.SIGINT


class Program(Sectioned, click.Group):
    """A group whose commands live in a module each, and that ends in one sentence at worst.

    Exit codes: 0, or 2 where the user can put something right (one sentence on standard error
    says what), 130 after Ctrl-C, 1 where nobody reads the output any more (click sees to that),
    70 for a fault of this program: an exception that nobody expected (`cli.fault` reports it).
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which one needs them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of that name."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"mlx_yoda.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; of an unknown one say which was perhaps meant."""
        if args and args[0] not in _TOGETHER and processes(os.environ) > 1:
            kind = SaidAlready if rank(os.environ) else UserError
            raise kind(f"mlx-yoda {args[0]} is for one process: run it without a launcher.")
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            raise click.NoSuchCommand(args[0], possibilities=_COMMANDS, ctx=ctx)
        return super().resolve_command(ctx, args)

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run a command line and exit."""
        with redacted_streams():
            sys.exit(self._code(args, prog_name, **extra))

    def _code(self, args: Sequence[str] | None, prog_name: str | None, **extra: Any) -> int:
        """Run a command line, say what went wrong, and give the exit code."""
        try:
            _check_encoding(sys.argv[1:] if args is None else args)
            code: int | None = super().main(args, prog_name, standalone_mode=False, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = error.exit_code
        except click.UsageError as error:
            code = refuse(error.format_message(), error.ctx)
        except SaidAlready:
            code = _WRONG_INPUT
        except UserError as error:
            code = refuse(str(error))
        except click.Abort:  # click's name for KeyboardInterrupt; it has ended the line
            code = _INTERRUPTED
        except (OSError, RuntimeError, ValueError) as error:
            if (message := _explain(error)) is None:
                raise
            code = refuse(message)
        return code or 0


def refuse(message: str, ctx: click.Context | None = None) -> int:
    """Say in one line what the user can put right, and give the exit code for it."""
    say_error(message, ctx)
    return _WRONG_INPUT


def say_error(message: str, ctx: click.Context | None = None) -> None:
    """Say in one line what is wrong; what it quotes from a file cannot steer the terminal."""
    words = " ".join(message.split())
    sentence = "".join(c if c.isprintable() else repr(c)[1:-1] for c in words[: _LONGEST + 1])
    if len(words) > _LONGEST:
        sentence = f"{sentence[:-1]}…"
    if not sentence.endswith((".", "?", "?)")):
        sentence += "."
    if ctx is not None:
        sentence += f" Try '{ctx.command_path} --help'."
    which = f"process {rank(os.environ)}: " if rank(os.environ) else ""
    click.echo(f"error: {which}{sentence}", err=True)


def _check_encoding(args: Sequence[str]) -> None:
    """Refuse what is not text, before a file of that name is looked for, or written."""
    for arg in args:
        try:
            arg.encode()
        except UnicodeEncodeError:
            if sys.getfilesystemencoding() == "utf-8":
                raise UserError(f"{arg!r} is not UTF-8: rename it, or write it anew.") from None
            raise UserError(
                f"{arg!r} is not in this locale's encoding: set LC_ALL=C.UTF-8 or PYTHONUTF8=1."
            ) from None


def _explain(error: Exception) -> str | None:
    """What the machine does not allow, for people; None for what a library raises otherwise."""
    if is_compiler_s(error):
        return (
            f"MLX cannot compile a kernel ({first_line(error)}): free space in the temporary "
            f"directory, point TMPDIR elsewhere, or set {SWITCH}=1"
        )
    if isinstance(error, ValueError) and "maximum limit" in str(error):  # setrlimit's
        return (
            "mlx-lm raises the limit of open files to 4,096, which this process may not: raise "
            "the hard limit, as with 'ulimit -Hn 4096'"
        )
    if not isinstance(error, OSError) or not error.strerror:
        return None
    if isinstance(error, FileNotFoundError) and not error.filename and not _has_a_place():
        return "the current folder has been removed: change to another one"
    place = f"{error.filename}: " if error.filename else ""
    return f"{place}{error.strerror}"


def _has_a_place() -> bool:
    try:
        return bool(os.getcwd())
    except OSError:
        return False


def _hyphenated(name: str) -> str:
    """`--learning_rate` as `--learning-rate`; an access token stays one, to be blotted out."""
    return name.replace("_", "-") if redact(name) == name else name


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"mlx-yoda {__version__}")
        ctx.exit()


program = Program(
    name="mlx-yoda",
    no_args_is_help=True,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "token_normalize_func": _hyphenated,
    },
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_version,
            help="Show the version and exit.",
        )
    ],
    help="Fine-tune Phi-3 with LoRA on Apple Silicon, and talk to the result. Adapters are PEFT's"
    " files: Hugging Face loads them as they are.",
    epilog="""\
    mlx-yoda train --config demo      # no network, a few seconds
    mlx-yoda generate --model demo --adapter outputs/demo "You must find the old map."
    mlx-yoda train --help
    """,
)
