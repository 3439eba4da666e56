"""What all commands share: help with examples, and a standard output that is theirs alone."""

import contextlib
import inspect
import shutil
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, TextIO

import click
from click.shell_completion import CompletionItem

from mlx_yoda.cli.blas import prefer_openblas
from mlx_yoda.kernels import keep_kernels_private

_STDOUT = "mlx_yoda.stdout"


class Sectioned(click.Command):
    """A command whose epilog is shown as examples, line by line as it is written."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        if self.epilog:
            with formatter.section("Examples"):
                for line in inspect.cleandoc(self.epilog).splitlines():
                    formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


class Command(Sectioned):
    """A command during which standard output takes nothing but what `say` writes.

    Whatever libraries print goes to standard error.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the command line; `--switch true`, as other programs have it, is explained."""
        switches = {name: p for p in self.get_params(ctx) for name in p.opts if _is_switch(p)}
        for written, value in pairwise(args):
            name = written.replace("_", "-")
            if name in switches and value.lower() in ("true", "false"):
                other = "".join(f" or {opposite}" for opposite in switches[name].secondary_opts)
                raise click.UsageError(f"{name} takes no value: write {name}{other}.", ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        prefer_openblas()
        keep_kernels_private()
        ctx.meta[_STDOUT] = sys.stdout
        with contextlib.redirect_stdout(sys.stderr):
            return super().invoke(ctx)


def complete_path(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Let Tab offer files and folders for a parameter that may also be a Hub id."""
    return [CompletionItem(incomplete, type="file")]


def _is_switch(param: click.Parameter) -> bool:
    return isinstance(param, click.Option) and param.is_flag


def say(text: str = "", *, end: str = "\n") -> None:
    """Write to standard output at once."""
    click.echo(text + end, file=_stdout(), nl=False)


def program() -> list[str]:
    """The words that run this program again; it may not be on the shell's path."""
    if shutil.which("mlx-yoda"):
        return ["mlx-yoda"]
    module = sys.argv[0].endswith("__main__.py")
    return [sys.executable, "-m", "mlx_yoda"] if module else [sys.argv[0]]


def remark(text: str) -> None:
    """Write a line to standard error."""
    click.echo(text, err=True)


@contextlib.contextmanager
def own_stdout() -> Iterator[None]:
    """Give `sys.stdout` back for a while, to read a line with the terminal's line editor."""
    with contextlib.redirect_stdout(_stdout()):
        yield


def _stdout() -> TextIO:
    stream: TextIO = click.get_current_context().meta[_STDOUT]
    return stream
