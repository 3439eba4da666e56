"""How much faster two processes train than one, on this machine over loopback.

python -m benchmarks.scaling               # width 512, 4 layers, 16 rows a step, about 3 minutes

Runs of `mlx-yoda train` take turns, round after round: the same model, rows and rows a step,
shared by so many processes. Each process computes on one thread, as two on a machine of two cores
must; one process on two threads is what a user would otherwise have. A step's seconds are the
median over the run but for its first steps, and figures are medians of the rounds.

`mlx.launch` (0.32.4) asks its processes' streams without a pause and so takes the better part of a
core from what it has started; on machines of few cores that matters. So the processes are started
without it, as it starts them, and once more by it.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contenders.machine import machine
from benchmarks.random_phi3 import write_random_phi3
from mlx_yoda.model.load import DEMO, resolve

_LAUNCH = [sys.executable, "-c", "from mlx._distributed_utils.launch import main; main()"]
_WARM = 2  # steps that are not counted
_ROWS = 16  # of a step


@dataclass(frozen=True)
class Way:
    """How a run is started.

    Attributes:
        name: for people.
        processes: how many share a step.
        threads: of each process's matrix products.
        launcher: whether `mlx.launch` starts them.
    """

    name: str
    processes: int
    threads: int
    launcher: bool = False


WAYS = (
    Way("one process, one thread", 1, 1),
    Way("one process, two threads", 1, 2),
    Way("two processes, one thread each", 2, 1),
    Way("the same, started by mlx.launch", 2, 1, launcher=True),
)


def measure(
    base: Path, data: Path, work: Path, steps: int, rounds: int, ways: Sequence[Way] = WAYS
) -> dict[str, float]:
    """Seconds of a step, by way: the median over rounds of each run's median."""
    found: dict[str, list[float]] = {way.name: [] for way in ways}
    for turn in range(rounds):
        for way in ways if turn % 2 == 0 else reversed(ways):
            folder = work / f"{turn}-{way.processes}-{way.threads}-{way.launcher}"
            train(way, base, data, folder, steps)
            lines = (folder / "metrics.jsonl").read_text().splitlines()
            events = [event for event in map(json.loads, lines) if event["event"] == "step"]
            found[way.name].append(statistics.median(e["seconds"] for e in events[_WARM:]))
    return {name: statistics.median(seconds) for name, seconds in found.items()}


def train(way: Way, base: Path, data: Path, folder: Path, steps: int) -> None:
    """Run `mlx-yoda train` to its end.

    Raises:
        CalledProcessError: it failed.
    """
    settings = {
        "model.model_name_or_path": str(base),
        "data.dataset_name": str(data),
        "data.max_length": 128,
        "data.train_on": "all",
        "train.output_dir": str(folder),
        "train.per_device_train_batch_size": _ROWS // way.processes,
        "train.max_steps": steps,
        "train.logging_steps": 1,
        "train.save_strategy": "no",
    }
    options = [f"--set={key}={json.dumps(value)}" for key, value in settings.items()]
    command = [sys.executable, "-m", "mlx_yoda", "train", "--quiet", *options]
    threads = {name: str(way.threads) for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")}
    ports = _free_ports(way.processes)
    if way.launcher:
        launch = ["-n", str(way.processes), "-p", str(ports[0]), "--"]
        commands, environments = [[*_LAUNCH, *launch, *command]], [threads]
    else:
        hosts = folder.with_suffix(".hosts")
        hosts.parent.mkdir(parents=True, exist_ok=True)
        hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in ports]))
        alone = way.processes == 1
        commands = [command] * way.processes
        environments = [
            threads if alone else {**threads, "MLX_RANK": str(rank), "MLX_HOSTFILE": str(hosts)}
            for rank in range(way.processes)
        ]
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                subprocess.Popen(
                    one,
                    env={**os.environ, **more},
                    stdin=subprocess.PIPE,  # open and silent; the launcher asks it all the time
                    stdout=subprocess.DEVNULL,
                )
            )
            for one, more in zip(commands, environments, strict=True)
        ]
        for process in started:
            if process.wait():
                raise subprocess.CalledProcessError(process.returncode, process.args)


def material(work: Path, width: int, layers: int) -> tuple[Path, Path]:
    """A random Phi-3 and rows of about 100 tokens for it."""
    demo = Path(resolve(DEMO))
    sizes = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
    }
    config = json.loads((demo / "config.json").read_text()) | sizes
    write_random_phi3(work / "base", config, tokenizer=demo)
    rows = [
        {"prompt": "You must find the old map. " * 12, "completion": f"Find map {i}, you must."}
        for i in range(8 * _ROWS)
    ]
    data = work / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return work / "base", data


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base, data = material(Path(folder), args.width, args.layers)
        found = measure(base, data, Path(folder) / "runs", args.steps, args.rounds)
    say, first = sys.stdout.write, next(iter(found.values()))
    for key, value in machine().items():
        say(f"{key}: {value}\n")
    for name, seconds in found.items():
        say(f"{name:34} {seconds:6.3f} s a step {first / seconds:6.2f} times the first's speed\n")


def _free_ports(count: int) -> list[int]:
    """Ports in a row that nobody listens at, below those that the system gives out."""
    for first in range(20_000 + os.getpid() % 5_000, 32_000, count):
        with ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return list(range(first, first + count))
    raise OSError("no port is free")


if __name__ == "__main__":
    main()
