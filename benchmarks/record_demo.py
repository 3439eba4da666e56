"""Record the demo as the README shows it: a picture of a terminal in which it has really run.

python -m benchmarks.record_demo        # runs the demo, writes benchmarks/demo.svg

The commands run in a pseudo-terminal; pyte, a terminal emulator, keeps what is on its screen at
the end, and rich draws that as SVG. Nothing in the picture is written by hand.
"""

import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from itertools import groupby
from pathlib import Path

import pyte
from pyte.screens import Char
from rich import _export_format
from rich.console import Console
from rich.style import Style
from rich.text import Text

from mlx_yoda.files import write_text

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "benchmarks" / "demo.svg"
COLUMNS, ROWS = 108, 80
_COMMANDS = (
    "mlx-yoda train --config configs/demo.yaml",
    'mlx-yoda generate --model demo --adapter outputs/demo "You must find the old map."',
)
# Rich's own frame, but for the font that it would fetch from the network.
_FONT = re.compile(r"@font-face \{\{.*?\}\}\s*", re.DOTALL)
_FRAME = _FONT.sub("", _export_format.CONSOLE_SVG_FORMAT)
_COLORS = {"brown": "yellow", "default": None}  # pyte's names for what rich calls otherwise


def run(command: str, folder: Path) -> bytes:
    """What a command writes to a terminal of our size.

    Raises:
        subprocess.CalledProcessError: it fails.
    """
    program = folder / "bin" / "mlx-yoda"  # this checkout's, under the name that users know
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mlx_yoda "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    size = {"COLUMNS": str(COLUMNS), "LINES": str(ROWS), "TERM": "xterm-256color"}
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [program, *shlex.split(command)[1:]],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env={**os.environ, **size, "PATH": path, "PYTHONPATH": str(ROOT)},
    )
    os.close(theirs)
    said = b""
    try:
        while piece := os.read(ours, 65536):
            said += piece
    except OSError:  # Linux's way to say that the other end is closed
        pass
    os.close(ours)
    if process.wait():
        raise subprocess.CalledProcessError(process.returncode, command, said)
    return said


def screen(said: bytes) -> list[Text]:
    """The lines on a terminal's screen after it was told this, with their colours."""
    shown = pyte.Screen(COLUMNS, ROWS)
    shown.set_mode(pyte.modes.LNM)
    pyte.ByteStream(shown).feed(said)
    lines = []
    for y in range(ROWS):
        line = Text()
        for style, cells in groupby((shown.buffer[y][x] for x in range(COLUMNS)), _style):
            line.append("".join(cell.data for cell in cells), style)
        line.rstrip()
        lines.append(line)
    while lines and not lines[-1].plain:
        lines.pop()
    return lines


def picture(lines: list[Text]) -> str:
    """Lines as the SVG of a terminal."""
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        for line in lines:
            console.print(line, overflow="crop", no_wrap=True)
        return console.export_svg(title="mlx-yoda", code_format=_FRAME, unique_id="demo")


def main() -> None:
    """Run the demo, and write its picture."""
    said = b""
    with tempfile.TemporaryDirectory() as name:
        shutil.copytree(ROOT / "configs", Path(name) / "configs")
        for command in _COMMANDS:
            said += f"\x1b[1;32m$\x1b[0m {command}\n".encode() + run(command, Path(name)) + b"\n"
    write_text(PICTURE, picture(screen(said)))


def _style(cell: Char) -> Style:
    color = _COLORS.get(cell.fg, cell.fg)
    color = color.replace("bright", "bright_") if color else None
    if color and re.fullmatch("[0-9a-f]{6}", color):
        color = f"#{color}"
    return Style(color=color, bold=cell.bold, italic=cell.italics, underline=cell.underscore)


if __name__ == "__main__":
    main()
