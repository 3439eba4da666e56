"""The run on the terminal: a live panel, or a line now and then where there is no terminal."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich import console as rich_console
from rich.live import Live

from mlx_yoda.report.events import Event, Finished, Sampled, Started, Stepped, Working
from mlx_yoda.report.keyboard import mute
from mlx_yoda.report.panel import RunPanel
from mlx_yoda.report.progress import Progress
from mlx_yoda.report.words import describe, duration


class Console:
    """A reporter for people, on standard error.

    On a terminal it keeps a panel below whatever else there is to say, from the start of the run
    on; elsewhere it writes a line for each step that is logged. It is a context manager, so that
    the panel has come to rest before an error is shown.
    """

    def __init__(
        self,
        terminal: rich_console.Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._out = terminal or rich_console.Console(stderr=True, highlight=False)
        self._progress = Progress(clock)
        self._live: Live | None = None
        self._unmute: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        said_before = self._progress.sampled
        self._progress(event)
        if isinstance(event, Finished):
            self._stop()
        if isinstance(event, Sampled) and said_before and self._out.is_terminal:
            news = event.sample.answer != said_before.sample.answer  # else the panel shows it
        else:
            news = self._is_worth_a_line(event)
        if news:
            self._out.print(self._words(event), markup=False, soft_wrap=True)
        if self._out.is_terminal and self._live is None and isinstance(event, Started | Stepped):
            self._live = Live(
                RunPanel(self._progress), console=self._out, redirect_stdout=False, transient=False
            )
            self._unmute = mute()
            self._live.start()
        if self._live and isinstance(event, Working):
            self._live.refresh()  # what follows may leave no time for it

    def _is_worth_a_line(self, event: Event) -> bool:
        """The panel shows steps and what it is busy with; elsewhere these are lines, but few."""
        if isinstance(event, Working):
            return self._live is None and self._progress.step is None
        if isinstance(event, Stepped):
            return event.logged and not self._out.is_terminal
        return True

    def _words(self, event: Event) -> str:
        left = self._progress.remaining() if isinstance(event, Stepped) else None
        memory = self._progress.memory if isinstance(event, Stepped) else None
        words = describe(event)
        if memory:
            words += f" of {memory / 1e9:.1f} GB"
        return f"{words}  {duration(left)} left" if left else words

    def _stop(self) -> None:
        if self._live is not None:
            try:
                self._live.stop()
            finally:  # also at a signal while it draws its last
                self._unmute()
            self._live = None
