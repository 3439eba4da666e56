"""A data set of a million rows: how fast it starts, what memory it takes, how long the loop waits.

python -m benchmarks.large_data                    # a million rows as jsonl, some hundred MB
python -m benchmarks.large_data --kind arrow --rows 200000

Runs of `mlx-yoda train` on the demo model, each a process of its own that is watched from outside:
one of 720 rows, one that tokenises, one that finds the tokens, one that goes on from the middle of
it. Then all batches of an epoch; and the loop itself, on the demo model and on one of 100 MB: the
share of a step's time that passes before its next batch is there.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from mlx_yoda.cli.blas import prefer_openblas

prefer_openblas()

import datasets  # noqa: E402  a fast BLAS must come before mlx

from benchmarks.outside import Run, memory, watch  # noqa: E402
from benchmarks.random_phi3 import write_random_phi3  # noqa: E402
from mlx_yoda.config.parse import load_config  # noqa: E402
from mlx_yoda.config.schema import Config  # noqa: E402
from mlx_yoda.data.batches import Batch  # noqa: E402
from mlx_yoda.data.sources import DEMO  # noqa: E402
from mlx_yoda.files import write_json  # noqa: E402
from mlx_yoda.lora.binding import adapter_of  # noqa: E402
from mlx_yoda.model.load import fetch  # noqa: E402
from mlx_yoda.recipes.dataset import prepare  # noqa: E402
from mlx_yoda.recipes.fitting import fit_to_machine  # noqa: E402
from mlx_yoda.recipes.start import load_base, model_to_train  # noqa: E402
from mlx_yoda.train.loop import train  # noqa: E402
from mlx_yoda.train.meter import Meter  # noqa: E402
from mlx_yoda.train.plan import Plan, make_plan  # noqa: E402
from mlx_yoda.train.step import State  # noqa: E402

_LINES = 4  # of the demo's data in a row, about 100 tokens
_FAIR = {  # 100 MB in float32
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
}


@dataclass(frozen=True)
class Waiting:
    """How long the loop waits for its batches.

    Attributes:
        model: which.
        step: seconds of a step.
        batch: seconds of it until the batch is there.
    """

    model: str
    step: float
    batch: float

    @property
    def share(self) -> float:
        """Of a step's time."""
        return self.batch / self.step


@dataclass(frozen=True)
class Epoch:
    """All batches of one epoch, made and thrown away.

    Attributes:
        rows: how many they hold.
        seconds: what that takes.
        before, after: the process's own memory in bytes, after a tenth and at the end.
        middle: seconds to the first batch of the step in the middle, as a resumed run asks for it.
    """

    rows: int
    seconds: float
    before: int
    after: int
    middle: float


class Watched(Plan):
    """A plan that counts the seconds in which its batches are made."""

    seconds = 0.0

    def steps(self, start: int = 0) -> Iterator[tuple[int, Iterator[Batch]]]:
        """As the plan's."""
        for step, batches in self._counted(super().steps(start)):
            yield step, self._counted(batches)

    def _counted(self, items: Iterator[Any]) -> Iterator[Any]:
        while True:
            started = time.perf_counter()
            item = next(items, None)
            type(self).seconds += time.perf_counter() - started
            if item is None:
                return
            yield item


def write_rows(path: Path, rows: int, kind: str) -> int:
    """Write rows of a few sentences each, as `jsonl` or as `arrow`; the bytes on disk."""
    lines = [json.loads(line) for line in (DEMO / "train.jsonl").read_text().splitlines()]
    draw = random.Random(0)

    def row() -> dict[str, str]:
        some = draw.choices(lines, k=_LINES)
        return {key: " ".join(line[key] for line in some) for key in ("sentence", "translation")}

    if kind == "jsonl":
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(row()) + "\n" for _ in range(rows))
        return path.stat().st_size
    cache = path.parent / "datasets"
    made = datasets.Dataset.from_generator(lambda: (row() for _ in range(rows)), cache_dir=cache)
    made.save_to_disk(path)
    return sum(file.stat().st_size for file in path.iterdir())


def write_fair(folder: Path) -> None:
    """Write a random model of 100 MB."""
    demo = fetch("demo")
    sizes = json.loads((demo / "config.json").read_text()) | _FAIR
    write_random_phi3(folder, sizes, tokenizer=demo)


def configured(data: Path, output: Path, steps: int, model: str = "demo") -> list[str]:
    """The settings of a run."""
    return [
        f"model.model_name_or_path={model}",
        f"data.dataset_name={data}",
        "data.validation_split=0.001",
        f"train.output_dir={output}",
        "train.num_train_epochs=3",
        f"train.max_steps={steps}",
        "train.eval_strategy=no",
        "train.save_strategy=steps",
        f"train.save_steps={max(1, steps // 2)}",
    ]


def waiting(name: str, config: Config) -> Waiting:
    """Train within this process and count how long the batches take."""
    config, base, layers = model_to_train(config)
    data = prepare(config, base.tokenizer)
    plan, steps, _ = fit_to_machine(config, base, layers, data.train, lambda event: None)
    watched, meter = Watched(**vars(plan)), Meter()
    Watched.seconds = 0.0
    state = State.fresh(adapter_of(layers))
    train(state, watched, steps, config.train, meter, lambda event: None, lambda *_: False)
    # The first batch of an epoch also brings the order of all its rows.
    return Waiting(name, meter.seconds / plan.total_steps, Watched.seconds / plan.total_steps)


def read_epoch(config: Config) -> Epoch:
    """Make every batch of the first epoch, and the first one of a run that goes on."""
    base = load_base(config.model)
    plan = make_plan(prepare(config, base.tokenizer).train, config.train)
    started = time.perf_counter()
    next(next(plan.steps(plan.steps_per_epoch // 2))[1])
    middle = time.perf_counter() - started
    rows, before, started = 0, 0, time.perf_counter()
    for step, batches in islice(plan.steps(), plan.steps_per_epoch):
        rows += sum(len(batch.indices) for batch in batches)
        if step == plan.steps_per_epoch // 10:
            before, _ = memory(os.getpid())
    return Epoch(rows, time.perf_counter() - started, before, memory(os.getpid())[0], middle)


def _tell(run: Run) -> str:
    numbers = [f"{value / 1e6:10,.0f}" for value in (run.peak, run.first, run.last, run.mapped)]
    return f"{run.name:>20}{run.start:10.1f}{run.steps:10.1f}" + "".join(numbers) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables and write benchmarks/results/large_data.json."""
    options = _parser().parse_args(arguments)
    say = sys.stdout.write
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        folder = Path(place)
        os.environ["MLX_YODA_CACHE"] = str(folder / "cache")
        data = folder / ("rows.jsonl" if options.kind == "jsonl" else "rows")
        size = write_rows(data, options.rows, options.kind)
        say(f"{options.rows:,} rows as {options.kind}, {size / 1e6:,.0f} MB\n")
        say(f"{'':>20}   start s   steps s   peak MB  first MB   last MB mapped MB\n")
        small = watch("720 rows", configured(Path("demo"), folder / "small", options.steps))
        say(_tell(small))
        runs: list[Run] = []
        middle = str(folder / "tokens found" / f"checkpoint-{options.steps // 2}")
        for name in ("tokenising", "tokens found", "going on"):
            resume = ("--resume", middle) if name == "going on" else ()
            runs.append(watch(name, configured(data, folder / name, options.steps), *resume))
            say(_tell(runs[-1]))
        adapters = [(folder / run.name / "adapter_model.safetensors").read_bytes() for run in runs]
        same = adapters[1:] == adapters[:-1]
        say(f"all three end with the same bits: {same}\n")
        epoch = read_epoch(load_config(None, configured(data, folder / "none", -1)))
        say(f"all batches of an epoch: {epoch.rows:,} rows, {epoch.rows / epoch.seconds:,.0f} a "
            f"second; own memory {epoch.before / 1e6:,.0f} MB after a tenth, "
            f"{epoch.after / 1e6:,.0f} MB at the end\n")  # fmt: skip
        say(f"the first batch of the step in the middle: {1e3 * epoch.middle:.0f} ms\n")
        write_fair(folder / "fair")
        waits: list[Waiting] = []
        for name, model in (("the demo", "demo"), ("100 MB", str(folder / "fair"))):
            settings = configured(data, folder / "none", options.loop_steps, model)
            waits.append(waiting(name, load_config(None, settings)))
            say(f"{name:>20}: a step {1e3 * waits[-1].step:.1f} ms, of which the loop waits "
                f"{waits[-1].share:.2%} for its batch\n")  # fmt: skip
    found = {"rows": options.rows, "kind": options.kind, "bytes": size, "same": same}
    found |= {"small": asdict(small), "epoch": asdict(epoch)}
    found |= {"runs": [asdict(run) for run in runs], "waiting": [asdict(wait) for wait in waits]}
    options.output.mkdir(parents=True, exist_ok=True)
    write_json(options.output / "large_data.json", found)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.large_data",
        description="Start, memory and waiting of runs on a data set of very many rows.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kind", choices=["jsonl", "arrow"], default="jsonl")
    parser.add_argument("--steps", type=int, default=2000, help="of the runs watched from outside")
    parser.add_argument("--loop-steps", type=int, default=200, help="in which waiting is counted")
    parser.add_argument("--folder", type=Path, default=None, help="for the data; it is removed")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent / "results", help="folder"
    )
    return parser


if __name__ == "__main__":
    main()
