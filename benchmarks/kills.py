"""Kill training processes at random moments, resume each, and look for anything lost.

python -m benchmarks.kills --kills 50

A run of the demo model is killed with SIGKILL a few times, resumed each time and at last left to
finish; then the next run begins, until there have been as many kills as asked for. Every other
kill waits for a moment that is short: a checkpoint half written, an old one half removed, an
evaluation. After each kill the output folder must hold every checkpoint that was announced and
not yet rotated away, all intact, and nothing that cannot be read. Each finished run must have the
adapter and the optimizer's state of a run that nobody disturbed, bit for bit.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mlx_yoda.adapters.peft import load_adapter
from mlx_yoda.config.parse import load_config
from mlx_yoda.errors import UserError
from mlx_yoda.train.checkpoint import checkpoints
from mlx_yoda.train.integrity import flaw

MOMENTS = ("any time", "saving", "any time", "evaluating", "any time", "rotating")
_LIMIT, _EVERY_SAVE, _EVERY_EVALUATION = 2, 3, 4
_STEP, _SAVED = re.compile(r"step +(\d+)/"), re.compile(r"step (\d+): saved ")
_ASIDE = re.compile(r"\.checkpoint-(\d+)\..*\.aside")


@dataclass
class Result:
    """What the harness has seen.

    Attributes:
        kills: how many there were at each moment.
        finished: runs that came to their end after all their kills.
        faults: what must never be; empty if all is well.
    """

    kills: Counter[str] = field(default_factory=Counter)
    finished: int = 0
    faults: list[str] = field(default_factory=list)

    def words(self) -> str:
        """The result in a few lines."""
        moments = ", ".join(f"{count} {moment}" for moment, count in self.kills.most_common())
        return "\n".join(
            [
                f"{self.kills.total()} kills survived: {moments}",
                f"{self.finished} runs finished after their kills, each bit-identical to the "
                "undisturbed one",
                f"{len(self.faults)} faults",
                *self.faults,
            ]
        )


class Process:
    """One `mlx-yoda train`, and what it has said so far."""

    def __init__(self, folder: Path, steps: int, *how: str) -> None:
        self.folder, self.steps, self.log = folder, steps, folder.with_suffix(".log")
        settings = {
            "model.model_name_or_path": "demo",
            "data.dataset_name": "demo",
            "train.output_dir": folder,
            "train.max_steps": steps,
            "train.logging_steps": 1,
            "train.save_strategy": "steps",
            "train.save_steps": _EVERY_SAVE,
            "train.save_total_limit": _LIMIT,
            "train.eval_strategy": "steps",
            "train.eval_steps": _EVERY_EVALUATION,
        }
        options = [f"--set={key}={value}" for key, value in settings.items()]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlx_yoda", "train", *options, *how],
                stderr=log,
                stdout=subprocess.DEVNULL,
            )

    @property
    def said(self) -> str:
        """Its standard error."""
        return self.log.read_text(errors="replace")

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.process.poll() is not None

    def reached(self) -> int:
        """The last step it told of, 0 if none."""
        return max(map(int, _STEP.findall(self.said)), default=0)

    def kill_at(self, moment: str, delay: float) -> bool:
        """Send SIGKILL at a moment, seconds after the first step; says whether it was alive."""
        while not self.over and not self.reached():
            time.sleep(0.005)
        until = time.monotonic() + delay
        while not self.over and time.monotonic() < until:
            time.sleep(0.001)
        while not self.over and moment not in ("any time", self.moment()):
            pass  # those moments are short
        alive = not self.over
        self.process.kill()
        self.process.wait()
        return alive

    def moment(self) -> str:
        """What it is doing, or was when it was killed."""
        if not self.reached():
            return "starting"
        steps = [int(match[1]) for path in self._names() if (match := _ASIDE.fullmatch(path))]
        newest = max((int(path.name.split("-")[1]) for path in checkpoints(self.folder)), default=0)
        if steps:
            return "saving" if max(steps) > newest else "rotating"
        lines = self.said.splitlines() or [""]
        step = _STEP.match(lines[-1])
        if step and int(step[1]) % _EVERY_EVALUATION == 0:
            return "evaluating"
        return "ending" if self.reached() == self.steps else "training"

    def _names(self) -> list[str]:
        return os.listdir(self.folder) if self.folder.exists() else []


def faults_of(folder: Path, announced: set[int]) -> Iterator[str]:
    """What is wrong with a run's folder after a kill."""
    found = {int(path.name.split("-")[1]): path for path in checkpoints(folder)}
    for path in found.values():
        if broken := flaw(path):
            yield f"{path.name} is broken: {broken}"
    for step in announced - found.keys():
        if sum(other > step for other in found) < _LIMIT:
            yield f"checkpoint-{step} was announced and is lost"
    try:
        for path in [*found.values(), folder]:
            if (path / "adapter_config.json").exists():
                load_adapter(path)
        if (folder / "config.yaml").exists():
            load_config(folder / "config.yaml")
    except UserError as error:
        yield str(error)
    metrics = folder / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    for line in lines[:-1]:  # the last may be cut off, and is left out on resuming
        try:
            json.loads(line)
        except ValueError:
            yield f"metrics.jsonl has the line {line!r}"


def contents(folder: Path, steps: int) -> dict[str, bytes]:
    """What must be the same, bit for bit."""
    last = folder / f"checkpoint-{steps}" / "optimizer.safetensors"
    return {path.name: path.read_bytes() for path in (folder / "adapter_model.safetensors", last)}


def measure(kills: int, steps: int, seed: int, place: Path) -> Result:
    """Kill as often as asked for.

    Args:
        kills: how often at least.
        steps: of each run.
        seed: of the moments.
        place: a folder to work in.
    """
    rng, result = random.Random(seed), Result()
    undisturbed = Process(place / "undisturbed", steps)
    while not undisturbed.over and not undisturbed.reached():
        time.sleep(0.005)
    started = time.monotonic()
    assert undisturbed.process.wait() == 0, undisturbed.said
    seconds = time.monotonic() - started
    expected, run = contents(undisturbed.folder, steps), 0
    while result.kills.total() < kills:
        run += 1
        folder = place / f"run-{run}"
        if _life(folder, steps, min(rng.randint(2, 6), kills), seconds, rng, result):
            same = contents(folder, steps) == expected
            result.finished += same
            result.faults += [] if same else [f"run {run} ended with another adapter"]
    return result


def _life(
    folder: Path, steps: int, kills: int, seconds: float, rng: random.Random, result: Result
) -> bool:
    """One run, killed a few times and then left to finish; says whether it did."""
    announced: set[int] = set()
    for left in range(kills, -1, -1):
        resumable = bool(checkpoints(folder)) if folder.exists() else False
        process = Process(folder, steps, *(["--resume"] if resumable else ["--overwrite"]))
        if left:
            moment = MOMENTS[result.kills.total() % len(MOMENTS)]
            if process.kill_at(moment, rng.uniform(0, 2 * seconds / kills)):
                result.kills[process.moment()] += 1
        code = process.process.wait()
        announced |= {int(step) for step in _SAVED.findall(process.said)}
        found = [f"{folder.name}: {fault}" for fault in faults_of(folder, announced)]
        result.faults += found
        if code > 0:
            result.faults.append(f"{folder.name} could not go on: {process.said}")
            return False
        if code == 0:
            break
    return True


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=60, help="of each run")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        result = measure(args.kills, args.steps, args.seed, Path(place))
    print(result.words())
    sys.exit(bool(result.faults))


if __name__ == "__main__":
    main()
