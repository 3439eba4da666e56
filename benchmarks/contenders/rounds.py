"""The contenders, and their epochs in turn."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.contenders.job import Job, Outcome
from benchmarks.contenders.run import NOT_INSTALLED
from mlx_yoda.files import write_json

_ROOT = Path(__file__).parents[2]

# Name -> what of the job is its own.
CONTENDERS: Mapping[str, dict[str, Any]] = {
    "mlx-yoda": {"program": "yoda"},
    "mlx-yoda packed": {"program": "yoda", "packing": True},
    "mlx-yoda checkpointed": {"program": "yoda", "checkpointing": True},
    "mlx-lm": {"program": "apple"},
    "mlx-lm checkpointed": {"program": "apple", "checkpointing": True},
    "Transformers + PEFT": {"program": "torch_peft"},
    "Transformers + PEFT checkpointed": {"program": "torch_peft", "checkpointing": True},
    "TRL": {"program": "torch_trl"},
    "TRL checkpointed": {"program": "torch_trl", "checkpointing": True},
}


@dataclass(frozen=True)
class Run:
    """One contender in one round.

    Attributes:
        contender: its name.
        round: counted from 0.
        outcome: None if it could not run.
        note: why it could not.
    """

    contender: str
    round: int
    outcome: Outcome | None
    note: str = ""


def run_rounds(
    jobs: Sequence[Job], rounds: int, folder: Path, *, told: Callable[[str], Any]
) -> list[Run]:
    """Run every job once a round, forwards and backwards in turn.

    Args:
        jobs: one for each contender.
        rounds: how often.
        folder: for the files between the processes.
        told: hears of each run in a line.
    """
    runs = []
    absent: dict[str, str] = {}
    for number in range(rounds):
        for job in jobs if number % 2 == 0 else reversed(jobs):
            if job.contender in absent:
                runs.append(Run(job.contender, number, None, absent[job.contender]))
                continue
            run = _run(job, number, folder)
            runs.append(run)
            if run.outcome is None:
                absent[job.contender] = run.note
            told(f"round {number + 1} of {rounds}, {job.contender}: {_said(run)}\n")
    return runs


def _run(job: Job, number: int, folder: Path) -> Run:
    question, answer = folder / "job.json", folder / "outcome.json"
    answer.unlink(missing_ok=True)
    write_json(question, asdict(job))
    command = [sys.executable, "-m", "benchmarks.contenders.run", str(question), str(answer)]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        note = lines[-1] if done.returncode == NOT_INSTALLED else f"failed: {lines[-1]}"
        return Run(job.contender, number, None, note)
    return Run(job.contender, number, Outcome(**json.loads(answer.read_text(encoding="utf-8"))))


def _said(run: Run) -> str:
    if run.outcome is None:
        return run.note
    return f"{run.outcome.seconds:.2f} s after {run.outcome.warm_up_seconds:.1f} s of warm-up"
