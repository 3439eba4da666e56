"""One training step beside mlx-lm's: time and peak memory, with everything that can be kept.

python -m benchmarks.step                  # width 512, 8 layers, whole vocabulary, 4 x 256 tokens

All ways take turns in one process, round after round, on the same tokens, of which a part is
supervised; times are medians, ratios are medians of each round's own. The peak is what MLX's
allocator held at most above what was there before the step (weights, adapter, moments). The
order in which a lazy graph is evaluated decides a peak as well, so whole-layer recomputation is
measured in several.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from mlx_yoda.cli.blas import prefer_openblas

prefer_openblas()

import mlx.core as mx  # noqa: E402  a fast BLAS must come before it

from benchmarks.contenders.machine import machine  # noqa: E402
from benchmarks.contenders.one_step import ORDERS, Material, Step, mlx_lm, mlx_yoda  # noqa: E402
from mlx_yoda.files import write_json  # noqa: E402
from mlx_yoda.train.recompute import Keep  # noqa: E402

_RESULTS = Path(__file__).parent / "results"
BASELINE, UPPER_BASELINE = "mlx-lm", "mlx-lm, upper half"


@dataclass(frozen=True)
class Result:
    """One way to take a step.

    Attributes:
        name: of the way.
        against: the name of the way that the ratios are to.
        seconds: median of a step.
        peak: bytes above what was there before, the median of the rounds.
        time_ratio, peak_ratio: to the baseline's of the same round, medians.
    """

    name: str
    against: str
    seconds: float
    peak: float
    time_ratio: float
    peak_ratio: float


def ways(material: Material) -> dict[str, Callable[[], Step]]:
    """Every way to take the step, by name; the baselines come first."""
    half = material.layers // 2
    mixed = (Keep.SOURCES,) * half + (Keep.EVERYTHING,) * (material.layers - half)
    upper = list(range(half, material.layers))
    found: dict[str, Callable[[], Step]] = {
        BASELINE: lambda: mlx_lm(material),
        UPPER_BASELINE: lambda: mlx_lm(material, len(upper)),
        "everything kept": lambda: mlx_yoda(material, Keep.EVERYTHING),
        "half of the layers keep sources": lambda: mlx_yoda(material, mixed),
        "sources kept": lambda: mlx_yoda(material, Keep.SOURCES),
        "MLP made again": lambda: mlx_yoda(material, Keep.ATTENTION),
        "upper half, prefix run once": lambda: mlx_yoda(material, Keep.EVERYTHING, upper=upper),
    }
    for order in ORDERS:
        found[f"layers made again, {order}"] = partial(mlx_yoda, material, Keep.INPUT, order=order)
    return found


def compare(material: Material, names: Sequence[str], rounds: int) -> list[Result]:
    """Take the steps in turn, forwards and backwards."""
    builders = ways(material)
    steps = {name: builders[name]() for name in names}
    for step in steps.values():  # warm up, compilation included
        step()
        step()
    times: dict[str, list[float]] = {name: [] for name in names}
    peaks: dict[str, list[int]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            mx.clear_cache()
            before = mx.get_active_memory()
            mx.reset_peak_memory()
            started = time.perf_counter()
            steps[name]()
            times[name].append(time.perf_counter() - started)
            peaks[name].append(mx.get_peak_memory() - before)
    return [_result(name, times, peaks) for name in names]


def _result(name: str, times: dict[str, list[float]], peaks: dict[str, list[int]]) -> Result:
    upper = "upper half" in name and UPPER_BASELINE in times and name != UPPER_BASELINE
    against = UPPER_BASELINE if upper else BASELINE
    return Result(
        name,
        against,
        statistics.median(times[name]),
        statistics.median(peaks[name]),
        statistics.median(a / b for a, b in zip(times[name], times[against], strict=True)),
        statistics.median(a / b for a, b in zip(peaks[name], peaks[against], strict=True)),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table and write benchmarks/results/step.json."""
    options = _parser().parse_args(arguments)
    material = Material.random(
        width=options.hidden_size,
        layers=options.layers,
        vocabulary=options.vocab_size,
        rows=options.batch_size,
        length=options.length,
        supervised=options.supervised,
        dropout=options.dropout,
    )
    names = options.ways or list(ways(material))
    results = compare(material, [BASELINE, *(n for n in names if n != BASELINE)], options.rounds)
    say = sys.stdout.write
    say(f"{'':36}{'a step':>10}{'time':>7}{'peak':>11}{'peak':>7}\n")
    for r in results:
        say(f"{r.name:36}{r.seconds * 1e3:7.0f} ms{r.time_ratio:7.2f}"
            f"{r.peak / 1e6:8.0f} MB{r.peak_ratio:7.2f}   to {r.against}\n")  # fmt: skip
    options.output.mkdir(parents=True, exist_ok=True)
    asked = {name: str(value) for name, value in vars(options).items() if name != "output"}
    found = [asdict(result) for result in results]
    write_json(
        options.output / "step.json", {"machine": machine(), "settings": asked, "results": found}
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.step",
        description="Time and peak memory of one training step, beside mlx-lm's.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--ways", nargs="*", help="names of rows of the table; all if not given")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--hidden-size", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--vocab-size", type=int, default=32064)
    parser.add_argument("--batch-size", type=int, default=4, help="rows")
    parser.add_argument("--length", type=int, default=256, help="tokens of a row")
    parser.add_argument("--supervised", type=int, default=147, help="tokens of a row with loss")
    parser.add_argument("--dropout", type=float, default=0.05)
    parser.add_argument("--output", type=Path, default=_RESULTS, help="folder")
    return parser


if __name__ == "__main__":
    main()
