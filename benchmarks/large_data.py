"""A data set of a million rows: how fast it starts, what memory it takes, how long the loop waits.

python -m benchmarks.large_data                    # a million rows as jsonl, some hundred MB
python -m benchmarks.large_data --kind arrow --rows 200000

Three runs of `mlx-yoda train` on the demo model, each a process of its own that is watched from
outside: the first tokenises, the second finds the tokens, the third goes on from the middle of the
second. Then the loop itself, on the demo model and on one of 100 MB: the share of a step's time
that passes before its next batch is there.
"""

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from mlx_yoda.cli.blas import prefer_openblas

prefer_openblas()

import datasets  # noqa: E402  a fast BLAS must come before mlx

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
from mlx_yoda.recipes.start import model_to_train  # noqa: E402
from mlx_yoda.train.loop import train  # noqa: E402
from mlx_yoda.train.meter import Meter  # noqa: E402
from mlx_yoda.train.plan import Plan  # noqa: E402
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
class Run:
    """One process, as it looks from outside; memory in bytes.

    Attributes:
        name: what it does.
        start: seconds from its start until training begins.
        steps: seconds of training.
        peak: most memory of its own before training, data and model read.
        first, last: its own memory in the first and the last fifth of training, means.
        mapped: files that are mapped into its memory at the end; the system takes that back.
    """

    name: str
    start: float
    steps: float
    peak: int
    first: int
    last: int
    mapped: int


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
        f"train.save_steps={steps // 2}",
    ]


def watch(name: str, settings: Sequence[str], *options: str, every: float = 0.2) -> Run:
    """Run `mlx-yoda train` and look at it from outside."""
    sets = [word for setting in settings for word in ("--set", setting)]
    command = [sys.executable, "-m", "mlx_yoda", "train", "--json", *sets, *options]
    began = time.perf_counter()
    events: dict[str, float] = {}
    looks: list[tuple[float, int, int]] = []

    def listen(lines: Iterable[str]) -> None:
        for line in lines:
            events.setdefault(json.loads(line)["event"], time.perf_counter())

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        lines = io.TextIOWrapper(cast(BinaryIO, process.stdout), "utf-8")
        listener = threading.Thread(target=listen, args=(lines,))
        listener.start()
        while process.poll() is None:
            looks.append((time.perf_counter(), *_memory(process.pid)))
            time.sleep(every)
        listener.join()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    started, finished = events["started"], events["finished"]
    before = [own for when, own, _ in looks if when < started]
    during = [own for when, own, _ in looks if started < when < finished]
    fifth = max(1, len(during) // 5)
    return Run(
        name=name,
        start=started - began,
        steps=finished - started,
        peak=max(before),
        first=sum(during[:fifth]) // fifth,
        last=sum(during[-fifth:]) // fifth,
        mapped=next(mapped for when, _, mapped in reversed(looks) if when < finished),
    )


def _memory(pid: int) -> tuple[int, int]:
    """A process's own memory, and the files mapped into it; elsewhere than on Linux all is own."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        told = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True)
        return int(told.stdout or 0) * 1024, 0
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    own, mapped = (int(lines.get(key, "0").split()[0]) * 1024 for key in ("RssAnon", "RssFile"))
    return own, mapped


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
        runs: list[Run] = []
        middle = str(folder / "tokens found" / f"checkpoint-{options.steps // 2}")
        for name in ("tokenising", "tokens found", "going on"):
            resume = ("--resume", middle) if name == "going on" else ()
            runs.append(watch(name, configured(data, folder / name, options.steps), *resume))
            say(_tell(runs[-1]))
        adapters = [(folder / run.name / "adapter_model.safetensors").read_bytes() for run in runs]
        same = adapters[1:] == adapters[:-1]
        say(f"all three end with the same bits: {same}\n")
        write_fair(folder / "fair")
        waits: list[Waiting] = []
        for name, model in (("the demo", "demo"), ("100 MB", str(folder / "fair"))):
            settings = configured(data, folder / "none", options.loop_steps, model)
            waits.append(waiting(name, load_config(None, settings)))
            say(f"{name:>20}: a step {1e3 * waits[-1].step:.1f} ms, of which the loop waits "
                f"{waits[-1].share:.2%} for its batch\n")  # fmt: skip
    found = {"rows": options.rows, "kind": options.kind, "bytes": size, "same": same}
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
