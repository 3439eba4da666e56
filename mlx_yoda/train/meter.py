"""What the steps add up to between two reports, and over the run."""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_SMOOTH = 0.9  # weight of the past in the running mean of the loss: about ten steps
_ASLEEP = 10.0, 60.0  # a step this many times the longest, and seconds more, was not all work


class Last(NamedTuple):
    """The latest optimizer step by itself; `asleep` are seconds that were not spent on it."""

    loss: float = 0.0
    grad_norm: float = 0.0
    input_tokens: int = 0
    supervised_tokens: int = 0
    seconds: float = 0.0
    asleep: float = 0.0


@dataclass
class Meter:
    """Running totals; part of a checkpoint, so that a resumed run reports the same numbers.

    Steps whose update was skipped have no part in the losses.

    Attributes:
        interval_loss: sum of the step losses since the last report.
        interval_steps: steps since the last report.
        total_loss: sum of the step losses of the run.
        input_tokens: tokens of the data so far, repeated epochs counted.
        supervised_tokens: those that carried loss.
        seconds: time spent in steps.
        longest: of the steps, in seconds.
        skipped: updates skipped because the loss or a gradient was not finite.
        skipped_in_a_row: those up to now.
        smooth_loss: running mean of the step losses, None before the first.
        lowest_loss: the lowest that mean has been.
        diverged_at: the step since which that mean has been far above its lowest, if it is.
        last: the latest step by itself.
    """

    interval_loss: float = 0.0
    interval_steps: int = 0
    total_loss: float = 0.0
    input_tokens: int = 0
    supervised_tokens: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    skipped: int = 0
    skipped_in_a_row: int = 0
    smooth_loss: float | None = None
    lowest_loss: float | None = None
    diverged_at: int | None = None
    last: Last = field(default_factory=Last)

    def add(self, step: int, last: Last) -> None:
        """Count one optimizer step, from 1."""
        awake = self._awake(last.seconds)
        last = last._replace(seconds=awake, asleep=last.seconds - awake)
        self.input_tokens += last.input_tokens
        self.supervised_tokens += last.supervised_tokens
        self.seconds += last.seconds
        self.last = last
        if math.isfinite(last.loss) and math.isfinite(last.grad_norm):
            self.skipped_in_a_row = 0
            self._count(step, last.loss)
        else:
            self.skipped += 1
            self.skipped_in_a_row += 1

    def interval_mean(self) -> float:
        """Mean step loss since the last call, as Transformers logs it; NaN if all were skipped."""
        mean = self.interval_loss / self.interval_steps if self.interval_steps else math.nan
        self.interval_loss, self.interval_steps = 0.0, 0
        return mean

    def mean_loss(self, steps: int) -> float:
        """Mean step loss of the run so far."""
        updates = steps - self.skipped
        return self.total_loss / updates if updates else math.nan

    def totals(self) -> dict[str, Any]:
        """What a checkpoint keeps: all but what single steps were like."""
        return {key: value for key, value in vars(self).items() if key not in ("last", "longest")}

    def _count(self, step: int, loss: float) -> None:
        self.interval_loss += loss
        self.interval_steps += 1
        self.total_loss += loss
        before = loss if self.smooth_loss is None else self.smooth_loss
        self.smooth_loss = _SMOOTH * before + (1 - _SMOOTH) * loss
        lowest = self.smooth_loss if self.lowest_loss is None else self.lowest_loss
        self.lowest_loss = min(lowest, self.smooth_loss)
        if self.smooth_loss <= 2 * self.lowest_loss + 0.5:  # twice the lowest and half a nat
            self.diverged_at = None
        elif self.diverged_at is None:
            self.diverged_at = step

    def _awake(self, seconds: float) -> float:
        """The time a step took, or if the machine slept meanwhile, the longest it has taken."""
        times, more = _ASLEEP
        if self.longest and seconds > times * self.longest + more:
            return self.longest
        self.longest = max(self.longest, seconds)
        return seconds
