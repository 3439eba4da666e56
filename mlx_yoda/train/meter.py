"""What the steps add up to between two reports, and over the run."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Last(NamedTuple):
    """The latest optimizer step by itself."""

    loss: float = 0.0
    input_tokens: int = 0
    supervised_tokens: int = 0
    seconds: float = 0.0


@dataclass
class Meter:
    """Running totals; part of a checkpoint, so that a resumed run reports the same numbers.

    Attributes:
        interval_loss: sum of the step losses since the last report.
        interval_steps: steps since the last report.
        total_loss: sum of the step losses of the run.
        input_tokens: tokens of the data so far, repeated epochs counted.
        supervised_tokens: those that carried loss.
        seconds: time spent in steps.
        last: the latest step by itself.
    """

    interval_loss: float = 0.0
    interval_steps: int = 0
    total_loss: float = 0.0
    input_tokens: int = 0
    supervised_tokens: int = 0
    seconds: float = 0.0
    last: Last = field(default_factory=Last)

    def add(self, loss: float, input_tokens: int, supervised_tokens: int, seconds: float) -> None:
        """Count one optimizer step."""
        self.interval_loss += loss
        self.interval_steps += 1
        self.total_loss += loss
        self.input_tokens += input_tokens
        self.supervised_tokens += supervised_tokens
        self.seconds += seconds
        self.last = Last(loss, input_tokens, supervised_tokens, seconds)

    def interval_mean(self) -> float:
        """Mean step loss since the last call, as Transformers logs it."""
        mean = self.interval_loss / self.interval_steps
        self.interval_loss, self.interval_steps = 0.0, 0
        return mean

    def mean_loss(self, steps: int) -> float:
        """Mean step loss of the run so far."""
        return self.total_loss / steps

    def totals(self) -> dict[str, Any]:
        """What a checkpoint keeps: all but the last step."""
        return {key: value for key, value in vars(self).items() if key != "last"}
