"""How long a run will take on this machine, before anything of it is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from mlx_yoda.config.schema import Config
from mlx_yoda.data.packing import PackedRows
from mlx_yoda.model.sizes import Sizes
from mlx_yoda.train.calibration import calibrate
from mlx_yoda.train.cost import Amount, Speed, update, work
from mlx_yoda.train.fit import Fit
from mlx_yoda.train.plan import make_plan


@dataclass(frozen=True)
class Timing:
    """A prediction, in seconds; loading, evaluation, samples and checkpoints come on top.

    Attributes:
        speed: this machine's, on products of the model's shapes.
        tokens: of an epoch.
        steps_per_epoch, total_steps: optimizer steps.
        step, epoch, run: seconds of an optimizer step, an epoch and all epochs.
    """

    speed: Speed
    tokens: int
    steps_per_epoch: int
    total_steps: int
    step: float
    epoch: float
    run: float


def predict(
    config: Config,
    sizes: Sizes,
    fit: Fit,
    rows: PackedRows,
    *,
    dtype: str,
    quantization: Mapping[str, Any] | None,
    seconds: float,
) -> Timing:
    """Measure this machine for some seconds and predict a run's time.

    Args:
        config: the run.
        sizes: of the model and its adapter.
        fit: rows at once, and what the layers keep.
        rows: the training rows.
        dtype: of the base's floating-point numbers.
        quantization: config.json's, if the base is quantised.
        seconds: to measure for.
    """
    amount, plan = Amount.of(rows), make_plan(rows, config.train, fit.micro_batch)
    batch = round(amount.tokens / len(rows) * fit.micro_batch)
    speed = calibrate(
        sizes, batch, dtype=getattr(mx, dtype), quantization=quantization, seconds=seconds
    )
    spent = work(sizes, amount, fit.keep, dropout=config.lora.lora_dropout > 0)
    step = speed.seconds(spent) / plan.steps_per_epoch + speed.seconds(update(sizes))
    return Timing(
        speed=speed,
        tokens=int(amount.tokens),
        steps_per_epoch=plan.steps_per_epoch,
        total_steps=plan.total_steps,
        step=step,
        epoch=step * plan.steps_per_epoch,
        run=step * plan.total_steps,
    )
