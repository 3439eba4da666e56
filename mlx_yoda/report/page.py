"""report.html: one or several runs on a page that needs no network and no script."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jinja2 import Environment, StrictUndefined

from mlx_yoda.errors import UserError
from mlx_yoda.files import write_text
from mlx_yoda.report.charts import Series, line_chart
from mlx_yoda.report.difference import Pieces, difference, unchanged
from mlx_yoda.report.jsonl import blamed
from mlx_yoda.report.run import Run, Values, read_runs
from mlx_yoda.report.words import count, duration

REPORT_FILE = "report.html"

_NOTHING = "–"  # noqa: RUF001
_ROWS = 16  # of a chart's table, spread over the run


class Line(NamedTuple):
    """One line of a chart of one run: which numbers, and what they are called."""

    event: str
    key: str
    name: str
    scale: float = 1.0


@dataclass(frozen=True)
class Picture:
    """What a chart shows of every run."""

    title: str
    y_label: str
    lines: tuple[Line, ...]
    from_zero: bool = False


_PICTURES = (
    Picture(
        "Loss",
        "nats a token",
        (Line("step", "loss", "training"), Line("evaluate", "eval_loss", "held out")),
    ),
    Picture("Learning rate", "learning rate", (Line("step", "learning_rate", ""),), True),
    Picture("Gradient norm", "before clipping", (Line("step", "grad_norm", ""),), True),
    Picture(
        "Speed",
        "tokens a second",
        (
            Line("step", "input_tokens_per_second", "input"),
            Line("step", "supervised_tokens_per_second", "supervised"),
        ),
        True,
    ),
    Picture("Memory", "peak in GB", (Line("step", "peak_memory", "", 1e-9),), True),
)


class Chart(NamedTuple):
    """A picture drawn, and the same numbers as a table."""

    title: str
    svg: str
    heads: list[str]
    rows: list[list[str]]


class Answer(NamedTuple):
    """What was said, by whom, and which words another answer lacks.

    Attributes:
        kind: whether these words are new, or went.
        right: whether it is the reference.
    """

    who: str
    pieces: Pieces
    kind: Literal["ins", "del"]
    right: bool


class Question(NamedTuple):
    """A held-out question and its answers."""

    prompt: str
    reference: str
    answers: list[Answer]


def page(runs: Sequence[Run]) -> str:
    """The HTML of a report on runs, side by side where they are several."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = package_files("mlx_yoda.report").joinpath("page.html").read_text("utf-8")
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs side by side"
    return environment.from_string(template).render(
        title=title,
        runs=runs,
        figures=figures(runs),
        charts=[chart(picture, runs) for picture in _PICTURES],
        questions=questions(runs),
        journeys=[(run.name, found) for run in runs if (found := journey(run))],
        settings=settings(runs),
        notes=[(run.name, [e["message"] for e in run.of("note")]) for run in runs],
    )


def write_report(folders: Sequence[Path], path: Path) -> None:
    """Write the report on the runs in these folders.

    Raises:
        UserError: one of them is no run or a damaged one, or there is no folder for the report.
    """
    with blamed(*(folder / "metrics.jsonl" for folder in folders)):
        text = page(read_runs(folders))
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent} to write {path.name} into.")
    write_text(path, text)


def figures(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Name → the figure of each run; figures that no run has are left out."""
    columns = [_figures(run) for run in runs]
    rows = [(name, [column[name] for column in columns]) for name in columns[0]]
    return [(name, values) for name, values in rows if {*values} != {_NOTHING}]


def chart(picture: Picture, runs: Sequence[Run]) -> Chart:
    """Draw a picture; of several runs each keeps its colour and mark, its second line is dashed."""
    series = []
    for i, run in enumerate(runs):
        for j, line in enumerate(picture.lines):
            name = ", ".join([run.name] * (len(runs) > 1) + [line.name] * bool(line.name))
            points = run.points(line.event, line.key, line.scale)
            if points or j == 0:
                color = i if len(runs) > 1 else j
                series.append(Series(name or picture.title, points, color, dashed=j > 0))
    svg = line_chart(
        picture.title,
        series,
        x_label="step",
        y_label=picture.y_label,
        from_zero=picture.from_zero,
        height=300 if len(runs) < 3 else 300 + 20 * len(series) // 2,
    )
    columns = [dict(one.points) for one in series]
    steps = sorted({step for column in columns for step in column})
    shown = steps[:: -(-len(steps) // _ROWS)] if steps else []
    shown += steps[-1:] * (steps[-1:] != shown[-1:])
    rows = [
        [f"{step:g}", *(f"{c[step]:.4g}" if step in c else _NOTHING for c in columns)]
        for step in shown
    ]
    return Chart(picture.title, svg, ["step", *(one.name for one in series)], rows)


def questions(runs: Sequence[Run]) -> list[Question]:
    """The held-out questions of the first run with every run's answers."""
    found: dict[str, Question] = {}
    for run in runs:
        before = {s["prompt"]: s["answer"] for s in _samples(run, "before")}
        for sample in _samples(run, "after"):
            prompt, reference, said = sample["prompt"], sample["reference"], sample["answer"]
            question = found.setdefault(prompt, Question(prompt, reference, []))
            old = before.get(prompt)
            went, came = difference(old, said) if old is not None else ((), unchanged(said))
            if went and not question.answers:
                went = went if len(runs) == 1 else unchanged(old or "")
                question.answers.append(Answer("before", went, "del", False))
            who = run.name if len(runs) > 1 else "after"
            right = said.strip() == reference.strip()
            question.answers.append(Answer(who, came, "ins", right))
    return list(found.values())


def journey(run: Run) -> list[tuple[int, Answer]]:
    """The sample sentence at every evaluation that changed it, each beside the one before."""
    steps: list[tuple[int, Answer]] = []
    old: str | None = None
    told = [(0, sample) for sample in _samples(run, "before")[:1]]  # it is the same question
    for step, sample in told + [(event["step"], event["sample"]) for event in run.of("sample")]:
        said = sample["answer"]
        if said != old:
            pieces = unchanged(said) if old is None else difference(old, said)[1]
            right = said.strip() == sample["reference"].strip()
            steps.append((step, Answer(sample["prompt"], pieces, "ins", right)))
        old = said
    return steps if run.of("sample") else []


def settings(runs: Sequence[Run]) -> list[tuple[str, list[str], bool]]:
    """Key, every run's value, and whether it tells something: set, or not the same in all."""
    if not all(run.settings for run in runs):
        runs = [run for run in runs if run.settings]
    rows = []
    for row in zip(*(run.settings for run in runs), strict=True):
        values = [setting.value for setting in row]
        differ = len({*values}) > 1
        telling = differ if len(runs) > 1 else not row[0].default
        rows.append((row[0].key, values, telling))
    return rows


def _samples(run: Run, when: str) -> list[Values]:
    samples: list[Values] = run.last("generate", when=when).get("samples", [])
    return samples


def _figures(run: Run) -> dict[str, str]:
    started, finished, step = run.last("started"), run.last("finished"), run.last("step")
    before, after = run.last("generate", when="before"), run.last("generate", when="after")
    losses = run.points("evaluate", "eval_loss")
    best = min(losses, key=lambda point: point[1], default=None)
    machine = started.get("machine", {})
    seconds, tokens = finished.get("train_runtime"), finished.get("input_tokens")
    return {
        "base": started.get("base_model") or _NOTHING,
        "data": started.get("dataset") or _NOTHING,
        "trainable parameters": _shown(started.get("trainable_parameters"), count),
        "training rows": _shown(started.get("train_rows"), "{:,}".format),
        "steps": f"{step.get('step', 0):,} of {started.get('total_steps', 0):,}",
        "mean training loss": _shown(finished.get("train_loss"), "{:.4f}".format),
        "adapter of step": _shown(finished.get("kept_step"), "{:,}".format),
        "held-out loss, last": f"{losses[-1][1]:.4f}" if losses else _NOTHING,
        "held-out loss, best": f"{best[1]:.4f} at step {best[0]:g}" if best else _NOTHING,
        "exact match": _change(before, after, "exact_match", ".2f"),
        "chrF": _change(before, after, "chrf", ".1f"),
        "time in steps": _shown(seconds, duration),
        "input tokens a second": f"{tokens / seconds:,.0f}" if tokens and seconds else _NOTHING,
        "peak memory": _shown(step.get("peak_memory"), lambda b: f"{b / 1e9:.2f} GB"),
        "machine": machine.get("chip") or _NOTHING,
        "state": _NOTHING if finished else "not finished",
    }


def _shown(value: float | None, write: Callable[[Any], str]) -> str:
    return _NOTHING if value is None else write(value)


def _change(before: Values, after: Values, key: str, form: str) -> str:
    values = [format(found[key], form) for found in (before, after) if key in found]
    return " → ".join(values) or _NOTHING
