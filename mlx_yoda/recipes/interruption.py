"""Ctrl-C and SIGTERM while training: the first ends the run after the step, the second at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


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

    Attributes:
        signum: the signal that asks to stop, or None.
    """

    def __init__(self) -> None:
        self.signum: int | None = None

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        if self.signum is not None:
            raise Interrupted(signum)
        self.signum = signum


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Handle the signals for a while, then give them back to whoever had them.

    Signals that the process was started to ignore stay ignored, and threads other than the main
    one can handle none.
    """
    stop = Stop()
    main = threading.current_thread() is threading.main_thread()
    mine = [s for s in _SIGNALS if main and signal.getsignal(s) is not signal.SIG_IGN]
    own = {signum: signal.signal(signum, stop) for signum in mine}
    try:
        yield stop
    finally:
        for signum, handler in own.items():
            signal.signal(signum, handler)
