"""What is typed under the panel is not shown, and the terminal is left as it was."""

import os
import pty
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from mlx_yoda.report.keyboard import mute
from tests.machine import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
PANEL = """
import signal, sys, time
from rich.console import Console as Rich
from mlx_yoda.report.console import Console
from mlx_yoda.report.events import Stepped
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
step = Stepped(1, 40, 0.1, 1.25, 3e-4, 0.5, 100, 50, 1234.5, 600.0, 25 * 10**8, 0.1, True)
with Console(Rich(stderr=True, force_terminal=True)) as console:
    console(step)
    print("drawn", file=sys.stdout, flush=True)
    {end}
"""


def echoes(terminal):
    return bool(termios.tcgetattr(terminal)[3] & termios.ECHO)


def in_terminal(code, act):
    """Run a program in the foreground of a terminal; returns echo while it runs and after."""
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)

    def take_over():
        os.setsid()
        os.close(os.open(os.ttyname(0), os.O_RDWR))  # its controlling terminal

    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=slave, stderr=slave, stdout=subprocess.PIPE, preexec_fn=take_over, cwd=ROOT,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == b"drawn\n"
        during = echoes(slave)
        act(process, master)
        process.wait(PATIENCE)
        assert termios.tcgetattr(slave) == before
        return during, process.returncode
    finally:
        process.kill()
        process.stdout.close()
        os.close(slave)
        os.close(master)


@pytest.mark.parametrize(
    ("end", "act", "code"),
    [
        ("sys.stdin.readline()", lambda _, master: os.write(master, b"x\n"), 0),
        ("1 / len(input()[1:])", lambda _, master: os.write(master, b"x\n"), 1),
        ("time.sleep(60)", lambda process, _: process.send_signal(signal.SIGTERM), 3),
        ("time.sleep(60)", lambda process, master: os.write(master, b"x\x03"), -signal.SIGINT),
    ],
    ids=["end", "fault", "SIGTERM", "Ctrl-C"],
)
def test_echo_is_off_under_the_panel_and_on_after_it(end, act, code):
    during, returned = in_terminal(PANEL.replace("{end}", end), act)
    assert not during
    assert returned == code


def test_what_is_no_terminal_or_another_job_s_is_left_alone():
    read, write = os.pipe()
    mute(read)()
    master, slave = pty.openpty()  # of no job of this process
    unmute = mute(slave)
    assert echoes(slave)
    unmute()
    for descriptor in (read, write, master, slave):
        os.close(descriptor)
    mute(slave)()  # closed
