"""What a contender is asked to do, and what it reports; both travel as JSON between processes."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

TARGETS = ("o_proj", "qkv_proj", "gate_up_proj", "down_proj")


class Row(NamedTuple):
    """An example as every contender gets it.

    Attributes:
        tokens: ids, `(L,)`.
        prompt: how many of them come before the first that is a target; all after it are.
    """

    tokens: list[int]
    prompt: int

    @property
    def targets(self) -> int:
        """How many tokens carry loss."""
        return len(self.tokens) - max(1, self.prompt)


@dataclass(frozen=True)
class Job:
    """One epoch of LoRA.

    Attributes:
        contender: name of the contender, for messages.
        program: module of `benchmarks.contenders` that runs it.
        model: folder of the base.
        rows: JSON file of `{"train": [Row], "valid": [Row]}`.
        dtype: float32, float16 or bfloat16, of the base and of what is computed.
        batch_size: examples of one update.
        max_length: of a row of several examples; no example is longer.
        packing: whether examples share rows.
        checkpointing: whether layers are recomputed.
        compile: whether the contender compiles if it does so by itself.
        rank, alpha, dropout, learning_rate: of LoRA and AdamW.
        seed: of initialisation, order and dropout.
    """

    contender: str
    program: str
    model: str
    rows: str
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    batch_size: int = 4
    max_length: int = 64
    packing: bool = False
    checkpointing: bool = False
    compile: bool = True
    rank: int = 8
    alpha: float = 16
    dropout: float = 0.05
    learning_rate: float = 3e-4
    seed: int = 0

    def read_rows(self) -> tuple[list[Row], list[Row]]:
        """The rows to train on and the held-out ones."""
        content = json.loads(Path(self.rows).read_text(encoding="utf-8"))
        train, valid = ([Row(*row) for row in content[name]] for name in ("train", "valid"))
        return train, valid


@dataclass(frozen=True)
class Outcome:
    """One epoch, after a warm-up that is not counted.

    Attributes:
        seconds: of the epoch, making batches included.
        warm_up_seconds: of a step in every shape, compilation included.
        updates: optimizer steps of the epoch.
        input_tokens: of the data.
        supervised_tokens: those of them that carry loss.
        computed_tokens: positions that went through the model, padding included.
        peak_allocated: bytes the framework's allocator held at most; None where it does not tell.
        peak_resident: bytes the process held at most, on macOS from its start, on Linux in the
            epoch.
        held_out_loss: nats a supervised token after the epoch, on the same rows for everyone.
        device: what it ran on.
        versions: of the packages it consists of.
        threads: of the CPU's; None if the framework does not tell.
    """

    seconds: float
    warm_up_seconds: float
    updates: int
    input_tokens: int
    supervised_tokens: int
    computed_tokens: int
    peak_allocated: int | None
    peak_resident: int
    held_out_loss: float
    device: str
    versions: dict[str, str]
    threads: int | None = None

    def as_json(self) -> str:
        """One JSON object."""
        return json.dumps(asdict(self))


def padded(rows: list[Row], fill: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows side by side as `(B, T)` tokens and labels, -100 where there is no target."""
    longest = max(len(row.tokens) for row in rows)
    tokens = np.full((len(rows), longest), fill, np.int64)
    labels = np.full_like(tokens, -100)
    for i, row in enumerate(rows):
        length, start = len(row.tokens), max(1, row.prompt)
        tokens[i, :length] = row.tokens
        labels[i, start:length] = row.tokens[start:]
    return tokens, labels
