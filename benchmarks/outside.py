"""A run of `mlx-yoda train` as it looks from outside: how long it takes, and what memory."""

import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast


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
            looks.append((time.perf_counter(), *memory(process.pid)))
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


def memory(pid: int) -> tuple[int, int]:
    """A process's own memory, and the files mapped into it; elsewhere than on Linux all is own."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        told = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True)
        return int(told.stdout or 0) * 1024, 0
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    own, mapped = (int(lines.get(key, "0").split()[0]) * 1024 for key in ("RssAnon", "RssFile"))
    return own, mapped
