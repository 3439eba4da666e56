"""Ctrl-C and SIGTERM while training: the first ends the run after the step, the second at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mlx_yoda.train.group import Group

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_HANG_UP = (signal.SIGHUP,)  # what Ctrl-C becomes for a process that ssh has started


class Interrupted(KeyboardInterrupt):
    """A signal has ended the run.

    Attributes:
        signum: which one.
        step: the last step, which is saved; None where the run was stopped at once.
    """

    def __init__(self, signum: int, step: int | None = None) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum, self.step = signum, step


class Stop:
    """The handler of the signals: remembers the first, and raises `Interrupted` at the second.

    Of several processes each tells the others with the next step, so that all stop after it.

    Attributes:
        group: the processes that stop together.
    """

    def __init__(self, group: Group) -> None:
        self.group = group

    @property
    def signum(self) -> int | None:
        """The signal that asks to stop after this step, or None."""
        return self.group.wished() or None

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if signum in _HANG_UP:
            _write_nowhere()
        if self.group.wish:
            raise Interrupted(signum)
        self.group.wish = signum


@contextmanager
def stop_on_signal(group: Group | None = None) -> Iterator[Stop]:
    """Handle the signals for a while, then give them back to whoever had them.

    Signals that the process was started to ignore stay ignored, and threads other than the main
    one can handle none.

    Args:
        group: the processes that train together; None for this one alone.
    """
    group = group or Group()
    stop = Stop(group)
    main = threading.current_thread() is threading.main_thread()
    signals = _SIGNALS if group.size == 1 else (*_SIGNALS, *_HANG_UP)
    mine = [s for s in signals if main and signal.getsignal(s) is not signal.SIG_IGN]
    own = {signum: signal.signal(signum, stop) for signum in mine}
    try:
        yield stop
    finally:
        for signum, handler in own.items():
            signal.signal(signum, handler)


def _write_nowhere() -> None:
    """The terminal has gone, and writing to it would be an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
