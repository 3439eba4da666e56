"""A long run with evaluation and saving: does its memory grow, its open files, its threads?

python -m benchmarks.endurance               # 5,000 steps of the demo model

Every 25 steps the held-out loss is measured and a sentence generated, every 50 steps a checkpoint
is written and an old one removed. What the process holds is read every 50 steps; growth is the
difference between the means of the last and of the second fifth, as the first fills caches.
"""

import argparse
import os
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from statistics import fmean

from mlx_yoda.cli.blas import prefer_openblas

prefer_openblas()

import mlx.core as mx  # noqa: E402  a fast BLAS must come before it
from rich.console import Console as Terminal  # noqa: E402

from benchmarks.contenders import resident  # noqa: E402
from mlx_yoda.config.parse import load_config  # noqa: E402
from mlx_yoda.recipes.finetune import finetune  # noqa: E402
from mlx_yoda.report.console import Console  # noqa: E402
from mlx_yoda.report.events import Event, Stepped, both  # noqa: E402

_TASKS = Path("/proc/self/task")  # Linux's list of a process's threads


@dataclass(frozen=True)
class Held:
    """What the process holds after a step.

    Attributes:
        step: after which.
        resident: bytes of memory, as the system counts them.
        allocated: bytes that MLX's allocator has given out.
        files: open file descriptors.
        threads: of the system's, or where it does not tell, of Python's.
    """

    step: int
    resident: int
    allocated: int
    files: int
    threads: int


def measure(folder: Path, steps: int, every: int = 50) -> list[Held]:
    """Train, and look every so many steps.

    Args:
        folder: for the run's output.
        steps: optimizer steps.
        every: steps between two looks and two checkpoints; evaluations come twice as often.
    """
    held: list[Held] = []

    def look(event: Event) -> None:
        if isinstance(event, Stepped) and event.step % every == 0:
            held.append(_now(event.step))

    settings = {
        "model.model_name_or_path": "demo",
        "data.dataset_name": "demo",
        "train.output_dir": folder,
        "train.max_steps": steps,
        "train.logging_steps": every,
        "train.save_strategy": "steps",
        "train.save_steps": every,
        "train.eval_strategy": "steps",
        "train.eval_steps": max(1, every // 2),
    }
    config = load_config(None, [f"{key}={value}" for key, value in settings.items()])
    with (folder.parent / "log").open("w") as log, Console(Terminal(file=log)) as console:
        finetune(config, reporter=both(console, look))
    return held


def growth(held: Sequence[Held], name: str) -> float:
    """Of one of the quantities from the second to the last fifth, as a share."""
    fifth = len(held) // 5
    values = [float(getattr(one, name)) for one in held]
    return fmean(values[-fifth:]) / fmean(values[fifth : 2 * fifth]) - 1


def _now(step: int) -> Held:
    return Held(
        step=step,
        resident=resident.current(),
        allocated=mx.get_active_memory(),
        files=len(os.listdir("/dev/fd")),
        threads=len(os.listdir(_TASKS)) if _TASKS.exists() else threading.active_count(),
    )


def main() -> None:
    """Print what the process held, ten times over the run, and how much that grew."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=5000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        held = measure(Path(place) / "run", args.steps)
    names = [field.name for field in fields(Held)]
    say = sys.stdout.write
    say("".join(f"{name:>14}" for name in names) + "\n")
    for one in held[:: max(1, len(held) // 10)]:
        say("".join(f"{value:14,}" for value in astuple(one)) + "\n")
    say(f"{'growth':>14}" + "".join(f"{growth(held, name):14.2%}" for name in names[1:]) + "\n")


if __name__ == "__main__":
    main()
