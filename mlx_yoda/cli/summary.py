"""The last words of a training run: what changed, what was written, how to try it."""

import shlex
from typing import Literal

from mlx_yoda.cli.command import program
from mlx_yoda.config.quantization import short
from mlx_yoda.config.schema import Config
from mlx_yoda.report.events import Event, Finished, Generated, Sample, Saved
from mlx_yoda.report.words import one_line


class Story:
    """A reporter that remembers what the last words need.

    Attributes:
        checkpoint: the newest one's folder, or None.
        answers: what was generated before and after.
        end: how the run ended, or None before it has.
    """

    def __init__(self) -> None:
        self.checkpoint: str | None = None
        self.answers: dict[Literal["before", "after"], Generated] = {}
        self.end: Finished | None = None

    def __call__(self, event: Event) -> None:
        """Remember an event, if it is one to remember."""
        match event:
            case Saved():
                self.checkpoint = event.path
            case Generated():
                self.answers[event.when] = event
            case Finished():
                self.end = event


def summary(config: Config, story: Story) -> str:
    """Put the end of a run into words, several lines of them."""
    assert story.end is not None, "a run that has returned has finished"
    after, before = story.answers.get("after"), story.answers.get("before")
    lines: list[str] = []
    if after:
        lines += _samples(after, before)
        lines += [_scores(after, before)]
    lines += [
        f"Wrote {story.end.path}: the adapter (PEFT), its card (README.md), config.yaml, "
        "metrics.jsonl and report.html.",
        "Try it:",
        f"  {_try_it(config, story.end.path, after.samples[:1] if after else ())}",
    ]
    return "\n".join(lines)


def _samples(after: Generated, before: Generated | None) -> list[str]:
    old = {sample.prompt: sample.answer for sample in before.samples} if before else {}
    lines = ["Held out, never seen in training:"]
    for sample in after.samples:
        lines.append(f"  {one_line(sample.prompt)}")
        if sample.prompt in old:
            lines.append(f"    before: {one_line(old[sample.prompt])}")
        lines.append(f"    after:  {one_line(sample.answer)}")
        if sample.answer.strip() != sample.reference.strip():
            lines.append(f"    wanted: {one_line(sample.reference)}")
    return [*lines, ""]


def _scores(after: Generated, before: Generated | None) -> str:
    exact, chrf = f"{after.exact_match:.2f}", f"{after.chrf:.1f}"
    if before:
        exact, chrf = f"{before.exact_match:.2f} → {exact}", f"{before.chrf:.1f} → {chrf}"
    return f"Exact match {exact}, chrF {chrf}, on {after.rows} held-out rows.\n"


def _try_it(config: Config, path: str, samples: tuple[Sample, ...]) -> str:
    files = ["--model", config.model.model_name_or_path, "--adapter", path]
    if config.model.quantization is not None:  # where the base did not fit, it does not fit now
        files += ["--quantize", short(config.model.quantization)]
    if not samples:
        return shlex.join([*program(), "chat", *files])
    return shlex.join([*program(), "generate", *files, samples[0].prompt])
