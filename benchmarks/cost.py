"""The predicted time of a training step beside the measured one, over widths, batches and keeps.

python -m benchmarks.cost                # all of it, as a table
python -m benchmarks.cost --widths 512

The machine's speed is measured anew before each batch, as `mlx-yoda plan` does it; steps are
medians. Anything else that runs meanwhile spoils both.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

from mlx_yoda.cli.blas import prefer_openblas

prefer_openblas()

import mlx.core as mx  # noqa: E402  a fast BLAS must come before it

from benchmarks.contenders.machine import machine  # noqa: E402
from benchmarks.contenders.one_step import Material, mlx_yoda  # noqa: E402
from mlx_yoda.config.schema import LoraConfig  # noqa: E402
from mlx_yoda.data.packing import PackedRows  # noqa: E402
from mlx_yoda.model.sizes import sizes_of  # noqa: E402
from mlx_yoda.train.calibration import calibrate  # noqa: E402
from mlx_yoda.train.cost import Amount, Speed, update, work  # noqa: E402
from mlx_yoda.train.recompute import Keep  # noqa: E402

_BATCHES = ((4, 64), (16, 64), (4, 256))  # rows, tokens of a row
_DEPTHS = {128: 4, 256: 4, 512: 4, 1024: 3, 2048: 2, 3072: 2}


@dataclass(frozen=True)
class Result:
    """A step, measured and predicted, in seconds."""

    width: int
    rows: int
    length: int
    keep: Keep
    dropout: float
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        """By which share the prediction is too high."""
        return self.predicted / self.measured - 1


def results(widths: list[int], rounds: int, seconds: float) -> Iterator[Result]:
    """Measure and predict, one case after another."""
    for width, (rows, length) in product(widths, _BATCHES):
        material = {
            dropout: Material.random(
                width=width,
                layers=_DEPTHS.get(width, 2),
                vocabulary=4000,
                rows=rows,
                length=length,
                supervised=length // 2,
                dropout=dropout,
            )
            for dropout in (0.0, 0.05)
        }
        sizes = sizes_of(material[0.0].config, LoraConfig())
        speed = calibrate(sizes, rows * length, dtype=mx.float32, seconds=seconds)
        for (dropout, made), keep in product(material.items(), Keep):
            measured = _median(mlx_yoda(made, keep), rounds)
            predicted = _predicted(made, speed, keep)
            yield Result(width, rows, length, keep, dropout, measured, predicted)


def _predicted(material: Material, speed: Speed, keep: Keep) -> float:
    sizes = sizes_of(material.config, LoraConfig())
    keeps = (keep,) * material.layers
    spent = work(
        sizes, Amount.of(PackedRows.of(material.rows)), keeps, dropout=material.dropout > 0
    )
    return speed.seconds(spent) + speed.seconds(update(sizes))


def _median(step: Callable[[], None], rounds: int) -> float:
    step()  # warm up
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    """Print the table and what the predictions miss by."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cost", description="Predicted beside measured time of a step."
    )
    parser.add_argument("--widths", type=int, nargs="+", default=list(_DEPTHS))
    parser.add_argument("--rounds", type=int, default=3, help="steps of each kind")
    parser.add_argument("--seconds", type=float, default=5.0, help="to measure the speed for")
    options = parser.parse_args()
    sys.stdout.write(
        f"{machine()}\n width    batch  dropout  keep         measured predicted  error\n"
    )
    errors = []
    for r in results(options.widths, options.rounds, options.seconds):
        errors.append(abs(r.error))
        sys.stdout.write(
            f"{r.width:6} {r.rows:3} x {r.length:3} {r.dropout:8} {r.keep.name:11} "
            f"{r.measured:8.3f} s {r.predicted:7.3f} s {r.error:+6.0%}\n"
        )
        sys.stdout.flush()
    sys.stdout.write(f"off by {statistics.median(errors):.0%}, at most {max(errors):.0%}\n")


if __name__ == "__main__":
    main()
