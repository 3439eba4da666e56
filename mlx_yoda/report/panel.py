"""The live panel: bar, loss and its trend, rate, speed, memory, time, and the latest sentence."""

from rich.box import ROUNDED
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.markup import escape
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from mlx_yoda.report.progress import Progress, sparkline, trend
from mlx_yoda.report.words import duration, memory_size, one_line

_WIDEST = 96


class RunPanel:
    """What `rich.live` draws again and again, from where the run is at that moment."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self._spinner = Spinner("dots", style="cyan")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, _WIDEST)
        started = self.progress.started
        title = f"[bold]{escape(one_line(started.output_dir, 60))}[/]" if started else None
        yield Panel(
            Group(*self._parts(width - 4)),
            title=title,
            title_align="left",
            box=ROUNDED,
            border_style="green",
            width=width,
        )

    def _parts(self, width: int) -> list[RenderableType]:
        progress, parts = self.progress, []
        if progress.step:
            parts += [self._bar(width), self._figures(width)]
            if progress.sampled:
                parts += [self._sample(width)]
        if progress.stage:
            waited = duration(progress.clock() - progress.since)
            self._spinner.update(text=Text(f"{progress.stage} … {waited}", style="cyan"))
            parts.append(self._spinner)
        return parts or [Text("starting …", style="cyan")]

    def _bar(self, width: int) -> RenderableType:
        step = self.progress.step
        assert step is not None
        words = f" {step.step:,}/{step.total_steps:,}  epoch {step.epoch:.2f}"
        row = Table.grid(expand=False)
        bar = ProgressBar(
            step.total_steps, step.step, width=width - len(words), complete_style="green"
        )
        row.add_row(bar, Text(words, style="bold"))
        return row

    def _figures(self, width: int) -> RenderableType:
        progress, step = self.progress, self.progress.step
        assert step is not None
        left = progress.remaining()
        loss = Text(f"{step.loss:.4f}  ", style="bold")
        loss.append(sparkline(progress.losses, max(8, width // 3)), style="green")
        loss.append(f"  {trend(progress.losses)}", style="default")
        rows: list[tuple[str, Text]] = [("loss", loss)]
        if progress.evaluated:
            at = progress.evaluated
            rows.append(("held out", Text(f"{at.eval_loss:.4f} at step {at.step:,}")))
        rows += [
            ("rate", Text(f"{step.learning_rate:.2e}   gradient norm {step.grad_norm:.3g}")),
            (
                "tokens/s",
                Text(
                    f"{step.input_tokens_per_second:,.0f} input · "
                    f"{step.supervised_tokens_per_second:,.0f} supervised"
                ),
            ),
            ("memory", self._memory(step.peak_memory)),
            ("left", Text("…" if left is None else duration(left), style="bold")),
        ]
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis")
        for name, words in rows:
            table.add_row(name, words)
        return table

    def _memory(self, peak: int) -> Text:
        memory = self.progress.memory
        text = Text(memory_size(peak))
        if memory:
            share = peak / memory
            style = "red" if share > 0.9 else "yellow" if share > 0.75 else "default"
            percent = f"{share:.0%}" if share >= 0.01 else "under 1%"
            text.append(f" of {memory / 1e9:.1f} GB ({percent})", style=style)
        return text

    def _sample(self, width: int) -> RenderableType:
        sampled = self.progress.sampled
        assert sampled is not None
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(f"“{one_line(sampled.sample.prompt)}”\n", style="dim")
        text.append(f"→ {one_line(sampled.sample.answer)}", style="bold green")
        return text
