"""`mlx-yoda report`."""

from pathlib import Path

import click

from mlx_yoda.cli.command import Command, say

_EXAMPLES = """\
mlx-yoda report outputs/demo
mlx-yoda report outputs/r8 outputs/r16 outputs/r32 --output ranks.html
"""


@click.command("report", cls=Command, epilog=_EXAMPLES, short_help="Show runs as a page.")
@click.argument(
    "folders", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where to write it.  [report.html in the folder; here, if there are several]",
)
def command(folders: tuple[Path, ...], output: Path | None) -> None:
    """Write a page about one run, or several side by side.

    It shows loss, learning rate, gradient norm, speed and memory as charts, the held-out answers
    before and after, and the settings. The page is one file that needs no network. A run that is
    still going on can be looked at too.
    """
    from mlx_yoda.report.page import REPORT_FILE, write_report

    path = output or (folders[0] if len(folders) == 1 else Path()) / REPORT_FILE
    write_report(folders, path)
    say(f"Wrote {path}.")
