"""How a step's time and memory grow, and whether anything grows from step to step.

python -m benchmarks.growth                 # sweeps, then 1,000 steps of varying shapes
python -m benchmarks.growth --steps 0       # sweeps alone

Each sweep varies one size and leaves the others; peak memory is what the allocator held at most
above what was there before the step (weights, adapter, moments). Without a fused attention, as on
the CPU, a layer's probabilities `(B, heads, T, T)` are alive in its backward pass, so there the
peak bends upwards with the length of a row; along the batch it is linear anywhere.
"""

import argparse
import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mlx_yoda.cli.blas import prefer_openblas

prefer_openblas()

import mlx.core as mx  # noqa: E402  a fast BLAS must come before it
import numpy as np  # noqa: E402
from mlx_lm.models import phi3  # noqa: E402

from benchmarks.contenders import resident  # noqa: E402
from mlx_yoda.config.schema import LoraConfig, TrainConfig  # noqa: E402
from mlx_yoda.data.batches import collate, needed  # noqa: E402
from mlx_yoda.data.packing import Packed  # noqa: E402
from mlx_yoda.data.shapes import choose_shapes  # noqa: E402
from mlx_yoda.files import write_json  # noqa: E402
from mlx_yoda.lora.binding import adapter_of  # noqa: E402
from mlx_yoda.lora.inject import inject  # noqa: E402
from mlx_yoda.model.sizes import sizes_of  # noqa: E402
from mlx_yoda.report.events import Event, Stepped  # noqa: E402
from mlx_yoda.train.compilation import decide  # noqa: E402
from mlx_yoda.train.forward import Arrays, forward_of  # noqa: E402
from mlx_yoda.train.loop import train  # noqa: E402
from mlx_yoda.train.memory import demand  # noqa: E402
from mlx_yoda.train.meter import Meter  # noqa: E402
from mlx_yoda.train.plan import make_plan  # noqa: E402
from mlx_yoda.train.recompute import Keep  # noqa: E402
from mlx_yoda.train.step import State, Steps, Sums, make_steps  # noqa: E402

KEEPS = {"no": Keep.SOURCES, "yes": Keep.INPUT}  # gradient_checkpointing, as `Fit` reads it
SWEEPS: dict[str, tuple[int, ...]] = {
    "length": (64, 128, 256, 512, 1024, 2048, 4096),
    "batch": (1, 2, 4, 8, 16),
    "rank": (4, 8, 16, 32, 64),
    "depth": (1, 2, 4, 8),
    "vocabulary": (1000, 4000, 16000, 32064),
}


@dataclass(frozen=True)
class Case:
    """A model, its adapter and a batch."""

    width: int = 256
    depth: int = 4
    heads: int = 8
    vocabulary: int = 4000
    rank: int = 8
    batch: int = 1
    length: int = 128
    dropout: float = 0.05

    @property
    def config(self) -> dict[str, int | float | str]:
        """The model as config.json has it."""
        return {
            "model_type": "phi3",
            "hidden_size": self.width,
            "num_hidden_layers": self.depth,
            "intermediate_size": self.width * 8 // 3,
            "num_attention_heads": self.heads,
            "rms_norm_eps": 1e-5,
            "vocab_size": self.vocabulary,
            "torch_dtype": "float32",
        }

    @property
    def lora(self) -> LoraConfig:
        """The adapter."""
        return LoraConfig(r=self.rank, lora_dropout=self.dropout)


@dataclass(frozen=True)
class Point:
    """One measurement.

    Attributes:
        sweep: which size varies.
        value: that size.
        checkpointing: no or yes.
        seconds: a step, the fastest of a few.
        peak: bytes above what was there before the step.
    """

    sweep: str
    value: int
    checkpointing: str
    seconds: float
    peak: int


@dataclass(frozen=True)
class Sample:
    """The process after so many steps.

    Attributes:
        step: optimizer steps so far.
        resident: bytes the system counts.
        active, cache: bytes the allocator has given out, and holds in reserve.
    """

    step: int
    resident: int
    active: int
    cache: int


def sweep(base: Case, name: str, values: Sequence[int], repeats: int = 3) -> Iterator[Point]:
    """Vary one size, with and without checkpointing."""
    for value in values:
        for checkpointing, keep in KEEPS.items():
            case = replace(base, **{name: value})
            yield Point(name, value, checkpointing, *measure(case, keep, repeats))


def measure(case: Case, keep: Keep, repeats: int = 3) -> tuple[float, int]:
    """Seconds of a step after a first one, and its peak in bytes above what is there before."""
    steps, state = _build(case, keep)
    rows = [_row(case.vocabulary, case.length, seed) for seed in range(case.batch)]
    batch = Arrays.of(collate(rows, choose_shapes([needed(rows)])))
    mx.eval(batch)

    def step() -> None:
        sums = steps.accumulate(Sums.zero(state.adapter), state.adapter, batch, mx.random.key(0))
        mx.eval(sums)  # as in the loop, where it is under way before the update is asked for
        rate, number = mx.array(1e-4), mx.array(1.0)
        mx.eval(steps.update(sums, state.adapter, state.moments, rate, number))

    step()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return min(times), mx.get_peak_memory() - before


def steady(case: Case, count: int, every: int, told: Callable[[Sample], None]) -> list[Sample]:
    """Train on rows of many lengths and look at the process now and then.

    Args:
        case: the model; rows have 1/8 of its length up to all of it, `batch` of them an update.
        count: optimizer steps.
        every: steps between two looks.
        told: hears of each look.
    """
    config = TrainConfig(max_steps=count, per_device_train_batch_size=case.batch)
    lengths = np.random.default_rng(0).integers(case.length // 8, case.length + 1, 40 * case.batch)
    rows = [_row(case.vocabulary, int(length), i) for i, length in enumerate(lengths)]
    plan = make_plan(rows, config)
    steps, state = _build(case, Keep.SOURCES, config)
    need = demand(
        sizes_of(case.config, case.lora),
        plan.shapes[-1],
        (Keep.SOURCES,) * case.depth,
        dropout=case.dropout > 0,
        fused_attention=mx.metal.is_available(),
    )
    unbounded = mx.set_cache_limit(need.cache)
    samples: list[Sample] = []

    def look(event: Event) -> None:
        if isinstance(event, Stepped) and event.step % every == 0:
            held = mx.get_active_memory(), mx.get_cache_memory()
            samples.append(Sample(event.step, resident.current(), *held))
            told(samples[-1])

    try:
        train(state, plan, steps, config, Meter(), look, lambda state, meter: False)
    finally:
        mx.set_cache_limit(unbounded)
    return samples


def _build(case: Case, keep: Keep, config: TrainConfig | None = None) -> tuple[Steps, State]:
    mx.clear_cache()
    gc.collect()
    mx.random.seed(0)
    model = phi3.Model(phi3.ModelArgs.from_dict(case.config))
    model.freeze()
    layers = inject(model, case.lora, mx.random.key(0))
    config = config or TrainConfig()
    compiled = decide(config.compile).compiled
    steps = make_steps(config, layers, forward_of(model, keep), compiled=compiled)
    state = State.fresh(adapter_of(layers))
    mx.eval(model.parameters(), state.adapter, state.moments)
    return steps, state


def _row(vocabulary: int, length: int, seed: int) -> Packed:
    tokens = np.random.default_rng(seed).integers(1, vocabulary, length).astype(np.int32)
    return Packed(tokens, np.arange(length) >= length // 2, (length,))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables and write benchmarks/results/growth.json."""
    options = _parser().parse_args(arguments)
    base = Case(width=options.hidden_size, depth=options.layers, heads=options.heads)
    say = sys.stdout.write
    points: list[Point] = []
    for name in options.sweeps:
        say(f"{name:>10} checkpointing  seconds        peak\n")
        for point in sweep(base, name, [v for v in SWEEPS[name] if v <= options.most]):
            points.append(point)
            say(f"{point.value:10} {point.checkpointing:>13} {point.seconds:8.3f} "
                f"{point.peak / 1e6:8.1f} MB\n")  # fmt: skip
    samples: list[Sample] = []
    if options.steps:
        say("     steps    resident   allocated    in cache\n")
        every = max(1, options.steps // 10)
        samples = steady(replace(base, batch=4), options.steps, every, lambda s: _tell(s))
        later = [sample.resident for sample in samples[len(samples) // 5 :]]
        say(f"resident memory after the first fifth: {max(later) / min(later) - 1:.1%} apart\n")
    options.output.mkdir(parents=True, exist_ok=True)
    write_json(
        options.output / "growth.json",
        {
            "base": asdict(base),
            "device": str(mx.default_device()),
            "points": [asdict(point) for point in points],
            "samples": [asdict(sample) for sample in samples],
        },
    )


def _tell(sample: Sample) -> None:
    columns = (sample.resident, sample.active, sample.cache)
    sys.stdout.write(f"{sample.step:10} " + "".join(f"{c / 1e6:8.1f} MB " for c in columns) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth",
        description="Time and peak memory against the sizes, and resident memory against steps.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--sweeps", nargs="*", choices=list(SWEEPS), default=list(SWEEPS))
    parser.add_argument("--most", type=int, default=32064, help="leave out larger values")
    parser.add_argument("--steps", type=int, default=1000, help="of varying shapes; 0 for none")
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent / "results", help="folder"
    )
    return parser


if __name__ == "__main__":
    main()
