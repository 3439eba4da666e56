"""The run on the terminal: a progress bar, or a line now and then where there is none."""

from types import TracebackType
from typing import Self

from rich import console as rich_console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from mlx_yoda.report.events import (
    Evaluated,
    Event,
    Finished,
    Generated,
    Noted,
    Sampled,
    Saved,
    Started,
    Stepped,
)


class Console:
    """A reporter for people, on standard error.

    On a terminal it keeps a progress bar below whatever else there is to say; elsewhere it writes
    a line for each step that is logged. It is a context manager, so that the bar is gone before
    an error is shown.
    """

    def __init__(self, terminal: rich_console.Console | None = None) -> None:
        self._out = terminal or rich_console.Console(stderr=True, highlight=False)
        self._progress = _bar(self._out)
        self._task: TaskID | None = None

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
        match event:
            case Stepped() if self._out.is_terminal:
                self._move(event)
            case Stepped() if not event.logged:
                pass
            case _:
                self._out.print(describe(event), markup=False, soft_wrap=True)
        if isinstance(event, Finished):
            self._stop()

    def _stop(self) -> None:
        if self._task is not None:
            self._progress.stop()

    def _move(self, event: Stepped) -> None:
        """Move the bar, which appears with the first step, wherever that is in the run."""
        if self._task is None:
            self._progress.start()
            before = event.step - 1
            self._task = self._progress.add_task("", total=event.total_steps, completed=before)
        self._progress.update(self._task, completed=event.step, description=_figures(event))


def describe(event: Event) -> str:
    """An event in one line (two for the start)."""
    match event:
        case Started():
            return _start(event)
        case Stepped():
            width = len(str(event.total_steps))
            return f"step {event.step:{width}}/{event.total_steps}  {_figures(event)}"
        case Evaluated():
            return (
                f"step {event.step}: held-out loss {event.eval_loss:.4f}, "
                f"perplexity {event.eval_perplexity:.3f}"
            )
        case Generated():
            return (
                f"{event.when} training: exact match {event.exact_match:.3f}, "
                f"chrF {event.chrf:.1f} on {event.rows} held-out rows"
            )
        case Sampled():
            return f"step {event.step}: {one_line(event.sample.prompt)} → " + one_line(
                event.sample.answer
            )
        case Saved():
            return f"step {event.step}: saved {event.path}"
        case Noted():
            return f"note: {event.message}"
        case Finished():
            tokens = f"{event.input_tokens:,} tokens"
            return (
                f"{event.step} steps in {duration(event.train_runtime)}, {tokens}, "
                f"mean loss {event.train_loss:.4f}"
            )
    raise TypeError(f"there are no words for {event!r}")


def one_line(text: str, limit: int = 200) -> str:
    """Any text a model may have said, fit for a line on a terminal."""
    line = " ".join(text.split())
    line = "".join(char if char.isprintable() else "�" for char in line)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def count(number: int) -> str:
    """A number of parameters: 684,032, 12.58 M, 3.83 B."""
    for size, letter in ((1e9, "B"), (1e6, "M")):
        if number >= size:
            return f"{number / size:.2f} {letter}"
    return f"{number:,}"


def duration(seconds: float) -> str:
    """Seconds as 9.3 s, 4:05 min or 2:04:05 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


def _start(event: Started) -> str:
    share = 100 * event.trainable_parameters / event.total_parameters
    held_out = f", {event.validation_rows} held out" if event.validation_rows else ""
    parts = -(-event.rows_per_step // event.micro_batch)
    split = f" in {parts} micro-batches of {event.micro_batch}" if parts > 1 else ""
    return (
        f"{event.trainable_parameters:,} trainable parameters of "
        f"{count(event.total_parameters)} ({share:.2f} %)\n"
        f"{event.train_rows} training rows{held_out}; {event.total_steps} steps of "
        f"{event.rows_per_step} rows{split}, {event.epochs:.4g} epochs"
    )


def _figures(event: Stepped) -> str:
    return (
        f"loss {event.loss:.4f}  lr {event.learning_rate:.2e}  "
        f"{event.input_tokens_per_second:,.0f} tok/s  {event.peak_memory / 1e9:.2f} GB"
    )


def _bar(out: rich_console.Console) -> Progress:
    return Progress(
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.description}", markup=False),
        TimeRemainingColumn(),
        console=out,
        redirect_stdout=False,
    )
