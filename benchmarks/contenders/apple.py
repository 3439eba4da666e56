"""mlx-lm's own trainer (`mlx_lm.tuner.trainer`) over its own batches."""

import contextlib
import io
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.optimizers import AdamW, Optimizer
from mlx.utils import tree_map
from mlx_lm.tuner.callbacks import TrainingCallback
from mlx_lm.tuner.datasets import CacheDataset
from mlx_lm.tuner.trainer import TrainingArgs, iterate_batches, train
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load_model

from benchmarks.contenders import resident
from benchmarks.contenders.job import TARGETS, Job, Outcome, Row, padded


class Rows:
    """Rows already tokenised, with the interface of mlx-lm's own datasets."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A dictionary as mlx-lm's datasets hold; its length is what mlx-lm sorts by."""
        return {"messages": self.rows[index]}

    def process(self, row: dict[str, Any]) -> tuple[list[int], int]:
        """Tokens, and how many of them are prompt."""
        return row["messages"].tokens, row["messages"].prompt


class Epoch(TrainingCallback):
    """Warm-up and one epoch of mlx-lm's batches, the second of them on the clock."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, job: Job, rows: list[Row]) -> None:
        self.model, self.optimizer = model, optimizer
        self.settings = (CacheDataset(Rows(rows)), job.batch_size, job.max_length + 1)
        self.first = {batch.shape: (batch, lengths) for batch, lengths in self.epoch()}
        self.updates = len(rows) // job.batch_size
        self.computed = 0
        self.warm_up = self.started = self.seconds = 0.0
        self.allocated = self.resident = 0

    def epoch(self, loop: bool = False) -> Iterator[tuple[mx.array, mx.array]]:
        """The batches of one epoch, as mlx-lm makes them."""
        yield from iterate_batches(*self.settings, loop=loop)

    def batches(self, **_: Any) -> Iterator[tuple[mx.array, mx.array]]:
        """A batch of each shape, then, with the weights put back, the epoch."""
        weights = tree_map(mx.array, self.model.trainable_parameters())
        started = time.perf_counter()
        yield from self.first.values()
        self.model.update(weights)
        _forget(self.optimizer.state)
        mx.eval(self.model.parameters(), self.optimizer.state)
        self.warm_up = time.perf_counter() - started
        mx.reset_peak_memory()
        resident.reset_peak()
        self.started = time.perf_counter()
        for batch, lengths in self.epoch(loop=True):
            self.computed += batch.shape[0] * (batch.shape[1] - 1)
            yield batch, lengths

    def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
        """Called after the last step."""
        self.seconds = time.perf_counter() - self.started
        self.allocated, self.resident = mx.get_peak_memory(), resident.peak()


def run(job: Job) -> Outcome:
    """One epoch; rows that fill no batch are left out by mlx-lm."""
    if not job.compile:
        mx.disable_compile()
    mx.random.seed(job.seed)
    rows, valid = job.read_rows()
    model = _model(job)
    optimizer = AdamW(job.learning_rate, weight_decay=0.0, bias_correction=True)
    epoch = Epoch(model, optimizer, job, rows)
    steps = len(epoch.first) + epoch.updates
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        args = TrainingArgs(
            batch_size=job.batch_size,
            iters=steps,
            max_seq_length=job.max_length + 1,
            steps_per_report=steps,
            steps_per_save=steps + 1,
            adapter_file=str(Path(folder) / "adapters.safetensors"),
            grad_checkpoint=job.checkpointing,
        )
        train(model, optimizer, Rows(rows), None, args,
              iterate_batches=epoch.batches, training_callback=epoch)  # fmt: skip
    model.eval()
    return Outcome(
        seconds=epoch.seconds,
        warm_up_seconds=epoch.warm_up,
        updates=epoch.updates,
        input_tokens=sum(len(row.tokens) for row in rows),
        supervised_tokens=sum(row.targets for row in rows),
        computed_tokens=epoch.computed,
        peak_allocated=epoch.allocated,
        peak_resident=epoch.resident,
        held_out_loss=_held_out(model, valid),
        device=str(mx.default_device()),
        versions={name: version(name) for name in ("mlx-lm", "mlx")},
    )


def _model(job: Job) -> nn.Module:
    model, _ = load_model(Path(job.model))
    model.set_dtype(getattr(mx, job.dtype))
    model.freeze()
    part = {"o_proj": "self_attn", "qkv_proj": "self_attn"}
    keys = {f"{part.get(name, 'mlp')}.{name}" for name in TARGETS}
    lora = {"rank": job.rank, "scale": job.alpha / job.rank, "dropout": job.dropout, "keys": keys}
    linear_to_lora_layers(model, len(model.layers), lora)
    return model


def _forget(state: dict[str, Any]) -> None:
    """Set an optimizer's moments and step to zero where they are."""
    for key, value in state.items():
        if isinstance(value, dict):
            _forget(value)
        elif isinstance(value, list):
            for item in value:
                _forget(item)
        elif key != "learning_rate":
            state[key] = mx.zeros_like(value)


def _held_out(model: nn.Module, rows: list[Row]) -> float:
    total, count = 0.0, 0
    for row in rows:
        tokens, labels = padded([row])
        logits = model(mx.array(tokens[:, :-1])).astype(mx.float32)
        weights = mx.array(labels[:, 1:] >= 0)
        losses = nn.losses.cross_entropy(logits, mx.array(tokens[:, 1:]))
        total += cast(float, (losses * weights).sum().item())
        count += row.targets
    return total / count
