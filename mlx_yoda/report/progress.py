"""Where a run is: what the console shows, kept up to date from its events."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from mlx_yoda.report.events import (
    Evaluated,
    Event,
    Noted,
    Sampled,
    Saved,
    Started,
    Stepped,
    Working,
)

_BLOCKS = "▁▂▃▄▅▆▇█"
_KEPT = 2000  # losses; more are halved, as no line shows so many


class Progress:
    """A reporter that remembers the latest of everything.

    Attributes:
        started: how the run began, or None.
        step: the latest step, or None.
        losses: of the steps so far, in nats a token; of a long run means of neighbours.
        evaluated: the latest evaluation, or None.
        sampled: the latest sample sentence, or None.
        stage: what it is busy with besides steps, or None.
        since: when that or the run began, by the clock.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.started: Started | None = None
        self.step: Stepped | None = None
        self.losses: list[float] = []
        self.evaluated: Evaluated | None = None
        self.sampled: Sampled | None = None
        self.stage: str | None = None
        self.since = clock()
        self._first: tuple[int, float] | None = None  # a step and when it was done
        self._merged = 1
        self._pending: list[float] = []

    def __call__(self, event: Event) -> None:
        """Take an event in."""
        if not isinstance(event, Noted | Saved | Started):
            self.stage = None
        match event:
            case Started():
                self.started = event
            case Working():
                self.stage, self.since = event.what, self.clock()
            case Stepped():
                self.step = event
                first, since = self._first or (event.step, self.clock())
                self._first = (first, since + (event.asleep or 0.0))
                self._remember(event.loss)
            case Evaluated():
                self.evaluated = event
            case Sampled():
                self.sampled = event

    @property
    def memory(self) -> float | None:
        """Bytes that the machine has for this: the GPU's share where it has one."""
        machine = self.started.machine if self.started else {}
        found = machine.get("gpu_memory_bytes") or machine.get("memory_bytes")
        return float(found) if found else None

    def remaining(self) -> float | None:
        """Seconds to the end at the pace so far, evaluations included; None before it is known."""
        if self.step is None or self._first is None or self.step.step == self._first[0]:
            return None
        first, since = self._first
        pace = (self.clock() - since) / (self.step.step - first)
        return pace * (self.step.total_steps - self.step.step)

    def _remember(self, loss: float) -> None:
        self._pending.append(loss)
        if len(self._pending) == self._merged:
            self.losses.append(_mean(self._pending))
            self._pending = []
        if len(self.losses) >= _KEPT:
            self.losses = [_mean(self.losses[i : i + 2]) for i in range(0, _KEPT, 2)]
            self._merged *= 2


def sparkline(values: Sequence[float], width: int) -> str:
    """Values as a row of at most so many blocks; what is not finite is a gap."""
    if not values:
        return ""
    width = min(width, len(values))
    ends = [len(values) * i // width for i in range(width + 1)]
    means = [_mean(values[a:b]) for a, b in pairwise(ends)]
    finite = [mean for mean in means if math.isfinite(mean)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)

    def block(mean: float) -> str:
        share = (mean / 2 - low / 2) / (high / 2 - low / 2) if high / 2 > low / 2 else 0.0
        return _BLOCKS[round(share * (len(_BLOCKS) - 1))] if math.isfinite(mean) else " "

    return "".join(map(block, means))


def trend(values: Sequence[float]) -> str:
    """Whether the last tenth of the values is below, above, or about the tenth before it."""
    size = len(values) // 10 or 1
    if len(values) < 2 * size:
        return ""
    new, old = _mean(values[-size:]), _mean(values[-2 * size : -size])
    if not (math.isfinite(new) and math.isfinite(old)):
        return ""
    margin = 0.01 * abs(old)
    return "↘ falling" if new < old - margin else "↗ rising" if new > old + margin else "→ level"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
