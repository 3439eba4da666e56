"""The measurements as JSON, as a Markdown page and as a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.contenders.job import Outcome
from benchmarks.contenders.rounds import Run
from mlx_yoda.files import write_json, write_text

REFERENCE = "mlx-lm"


@dataclass(frozen=True)
class Summary:
    """A contender over all rounds; medians, but for the fields said otherwise.

    Attributes:
        contender: its name.
        note: why there is nothing else.
        seconds: an epoch.
        ratio: of its seconds to mlx-lm's of the same round; None without mlx-lm.
        input_tokens_per_second, supervised_tokens_per_second: of the data.
        padding_share: of the positions computed.
        peak_allocated: bytes; None where the framework does not tell.
        peak_resident: bytes.
        held_out_loss: nats a token.
        updates: optimizer steps.
        warm_up_seconds: before the clock.
        device, versions, threads: as the outcome's.
    """

    contender: str
    note: str = ""
    seconds: float | None = None
    ratio: float | None = None
    input_tokens_per_second: float | None = None
    supervised_tokens_per_second: float | None = None
    padding_share: float | None = None
    peak_allocated: int | None = None
    peak_resident: int | None = None
    held_out_loss: float | None = None
    updates: int | None = None
    warm_up_seconds: float | None = None
    device: str | None = None
    versions: Mapping[str, str] | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Report:
    """Everything measured.

    Attributes:
        machine: what it ran on.
        settings: what was asked for.
        runs: all epochs of all contenders.
    """

    machine: Mapping[str, str]
    settings: Mapping[str, str]
    runs: Sequence[Run]

    def summaries(self) -> list[Summary]:
        """One for each contender, in their order."""
        names = dict.fromkeys(run.contender for run in self.runs)
        return [self._summary(name) for name in names]

    def markdown(self) -> str:
        """The page."""
        lines = [
            "# One epoch of LoRA",
            "",
            "Median of the rounds; the ratio is the median of the rounds' own ratios to mlx-lm. "
            "Every contender ran in its own process, took turns with the others, and had a step in "
            "each shape of batch before the clock started.",
            "",
            *_table(self.summaries()),
            "",
            *(
                f"- {name.replace('_', ' ')}: {value}"
                for name, value in {**self.machine, **self.settings}.items()
            ),
            "",
            "Supervised tokens are those of the data that carry loss; input tokens are all tokens "
            "of the data; padding is neither. Clipping, data order and initialisation are each "
            "contender's own.",
            "",
        ]
        return "\n".join(lines)

    def svg(self) -> str:
        """Bars of the time of an epoch."""
        shown = [s for s in self.summaries() if s.seconds is not None]
        return _bars([(s.contender, s.seconds or 0.0) for s in shown])

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "summaries": [asdict(summary) for summary in self.summaries()]}

    def _summary(self, name: str) -> Summary:
        mine = {run.round: run.outcome for run in self.runs if run.contender == name}
        outcomes = [outcome for outcome in mine.values() if outcome]
        if not outcomes:
            return Summary(name, next(run.note for run in self.runs if run.contender == name))
        first = outcomes[0]
        seconds = _median(outcomes, "seconds")
        return Summary(
            contender=name,
            seconds=seconds,
            ratio=self._ratio(mine),
            input_tokens_per_second=first.input_tokens / seconds,
            supervised_tokens_per_second=first.supervised_tokens / seconds,
            padding_share=1 - first.input_tokens / first.computed_tokens,
            peak_allocated=_whole(outcomes, "peak_allocated"),
            peak_resident=_whole(outcomes, "peak_resident"),
            held_out_loss=_median(outcomes, "held_out_loss"),
            updates=first.updates,
            warm_up_seconds=_median(outcomes, "warm_up_seconds"),
            device=first.device,
            versions=first.versions,
            threads=first.threads,
        )

    def _ratio(self, mine: Mapping[int, Outcome | None]) -> float | None:
        theirs = {run.round: run.outcome for run in self.runs if run.contender == REFERENCE}
        ratios = []
        for number, outcome in mine.items():
            other = theirs.get(number)
            if outcome and other:
                ratios.append(outcome.seconds / other.seconds)
        return median(ratios) if ratios else None


def save(report: Report, folder: Path) -> list[Path]:
    """Write train.json, train.md and train.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"train.{ending}" for ending in ("json", "md", "svg")]
    write_json(paths[0], report.as_dict())
    write_text(paths[1], report.markdown())
    write_text(paths[2], report.svg())
    return paths


def _median(outcomes: Sequence[Outcome], name: str) -> float:
    return median(asdict(outcome)[name] for outcome in outcomes)


def _whole(outcomes: Sequence[Outcome], name: str) -> int | None:
    if any(asdict(outcome)[name] is None for outcome in outcomes):
        return None
    return int(_median(outcomes, name))


def _table(summaries: Sequence[Summary]) -> list[str]:
    heads = ["contender", "s / epoch", "to mlx-lm", "input tok/s", "supervised tok/s", "padding",
             "peak allocated", "peak resident", "held-out loss", "updates", "on"]  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 2) + "---|"]
    for s in summaries:
        if s.note:
            lines.append(f"| {s.contender} | {s.note} |" + " |" * (len(heads) - 2))
            continue
        versions = ", ".join(f"{name} {number}" for name, number in (s.versions or {}).items())
        cells = [
            s.contender,
            _show(s.seconds, ".2f"),
            _show(s.ratio, ".2f"),
            _show(s.input_tokens_per_second, ".0f"),
            _show(s.supervised_tokens_per_second, ".0f"),
            _show(s.padding_share, ".1%"),
            _megabytes(s.peak_allocated),
            _megabytes(s.peak_resident),
            _show(s.held_out_loss, ".4f"),
            _show(s.updates, "d"),
            f"{s.device}: {versions}" + (f"; {s.threads} threads" if s.threads else ""),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _show(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)  # noqa: RUF001


def _megabytes(value: int | None) -> str:
    return "–" if value is None else f"{value / 1e6:.0f} MB"  # noqa: RUF001


def _bars(bars: Sequence[tuple[str, float]]) -> str:
    """Horizontal bars with their names and seconds."""
    left, width, row = 250, 400, 28
    most = max((value for _, value in bars), default=1.0)
    height = row * len(bars) + 34
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 80}" height="{height}" '
        'font-family="sans-serif" font-size="13">',
        '<text x="8" y="18" font-weight="bold">Seconds an epoch</text>',
    ]
    for i, (name, value) in enumerate(bars):
        y, length = 30 + row * i, width * value / most
        color = "#4c8c4a" if name.startswith("mlx-yoda") else "#9aa5b1"
        lines += [
            f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{left}" y="{y}" width="{length:.1f}" height="20" fill="{color}"/>',
            f'<text x="{left + length + 6:.1f}" y="{y + 15}">{value:.2f}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])
