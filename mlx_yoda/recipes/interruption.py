"""Ctrl-C, SIGTERM, SIGHUP while training: the first ends it after the step, the second at once."""

import os
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from types import FrameType

from mlx_yoda.train.group import Group

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_NO_SIGNAL = b"\0"


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
        if signum == signal.SIGHUP:
            _write_nowhere()
        if self.group.wish:
            raise Interrupted(signum)
        self.group.wish = signum


@contextmanager
def stop_on_signal(
    group: Group | None = None, heard: Callable[[], None] = lambda: None
) -> Iterator[Stop]:
    """Handle the signals for a while, then give them back to whoever had them.

    Signals that the process was started to ignore stay ignored, and threads other than the main
    one can handle none.

    Args:
        group: the processes that train together; None for this one alone.
        heard: called once when a signal comes, from another thread: the handler has to wait for
            what MLX is evaluating.
    """
    group = group or Group()
    stop = Stop(group)
    main = threading.current_thread() is threading.main_thread()
    mine = [s for s in _SIGNALS if main and signal.getsignal(s) is not signal.SIG_IGN]
    own = {signum: signal.signal(signum, stop) for signum in mine}
    try:
        with _at_once(heard) if mine else nullcontext():
            yield stop
    finally:
        for signum, handler in own.items():
            signal.signal(signum, handler)


@contextmanager
def _at_once(heard: Callable[[], None]) -> Iterator[None]:
    """Call `heard` when the first signal comes, and not only when Python gets to handle it."""
    theirs, ours = socket.socketpair()
    ours.setblocking(False)

    def listen() -> None:
        if theirs.recv(1) != _NO_SIGNAL:
            heard()

    listener = threading.Thread(target=listen, name="signals", daemon=True)
    listener.start()
    before = signal.set_wakeup_fd(ours.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        with suppress(OSError):  # full of signals
            ours.send(_NO_SIGNAL)
        listener.join()
        theirs.close()
        ours.close()


def _write_nowhere() -> None:
    """The terminal, or ssh, has gone, and writing to it would be an error; files stay."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.dup2(nowhere, descriptor)
    os.close(nowhere)
