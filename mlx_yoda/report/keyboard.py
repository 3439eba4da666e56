"""Keys typed while the panel is drawn: not shown, and left for whoever reads them afterwards."""

import os
import termios
from collections.abc import Callable
from contextlib import suppress

_TROUBLE = (OSError, termios.error)


def mute(terminal: int = 0) -> Callable[[], None]:
    """Stop a terminal from showing what is typed, which would break the panel in two.

    Does nothing where it is no terminal or another job's: from the background, writing its
    settings would stop this process.

    Args:
        terminal: file descriptor of standard input.

    Returns:
        What puts the terminal back as it was; it may be called again.
    """
    if not _is_ours(terminal):
        return lambda: None
    before = termios.tcgetattr(terminal)
    iflag, oflag, cflag, lflag, *rest = before
    quiet = [iflag, oflag, cflag, lflag & ~termios.ECHO, *rest]
    termios.tcsetattr(terminal, termios.TCSANOW, quiet)

    def unmute() -> None:
        if _is_ours(terminal):
            with suppress(*_TROUBLE):  # it was closed meanwhile
                termios.tcsetattr(terminal, termios.TCSANOW, before)

    return unmute


def _is_ours(terminal: int) -> bool:
    """Whether this is a terminal in whose foreground this process runs."""
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except _TROUBLE:
        return False
