"""What a run leaves behind."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """What a run leaves behind.

    Attributes:
        path: the output folder, which is a PEFT adapter.
        train_loss: mean step loss over the run, in nats a token.
        steps: optimizer steps taken in all.
    """

    path: Path
    train_loss: float
    steps: int
