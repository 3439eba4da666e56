"""metrics.jsonl: one event a line."""

import contextlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlx_yoda import files
from mlx_yoda.report.events import Event, Stepped, Working


class JsonLines:
    """A reporter that appends each event to a file as it comes.

    Steps go in every `logging_steps` only. The file is opened for each line, so that it may be
    moved, and a run that is killed leaves whole lines. What cannot be written, because the disk is
    full or the folder is gone, is written with the next event for which it can.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: list[str] = []

    def __call__(self, event: Event) -> None:
        """Append one line."""
        if not is_metric(event):
            return
        self._waiting.append(as_line(event) + "\n")
        with contextlib.suppress(OSError):
            files.append_text(self.path, "".join(self._waiting))
            self._waiting.clear()


def is_metric(event: Event) -> bool:
    """Whether an event is kept: all but steps between two logs, and what it is busy with."""
    return not isinstance(event, Working) and (not isinstance(event, Stepped) or event.logged)


def is_told(event: Event) -> bool:
    """Whether a program that follows the run hears of an event: of all but steps between logs."""
    return is_metric(event) or isinstance(event, Working)


def as_line(event: Event) -> str:
    """The event as one line of JSON."""
    return json.dumps(as_dict(event), allow_nan=True)


def as_dict(event: Event) -> dict[str, Any]:
    """The event with its name first, without what it leaves open, and without `logged`."""
    fields = {key: value for key, value in asdict(event).items() if value is not None}
    fields.pop("logged", None)
    return {"event": event.name, **fields}


def read(path: Path) -> list[dict[str, Any]]:
    """The events in a file; lines that hold none, such as one cut off by a crash, are left out."""
    events = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, RecursionError):  # endless nesting
            events.append(json.loads(line))
    return [event for event in events if isinstance(event, dict) and "event" in event]


def rewind(path: Path, step: int) -> None:
    """Take back what was told after a step, for a run that goes on from there."""
    if path.exists():
        kept = [event for event in read(path) if _is_kept(event, step)]
        files.write_text(path, "".join(json.dumps(event) + "\n" for event in kept))


def _is_kept(event: dict[str, Any], step: int) -> bool:
    told = event.get("step", 0)
    return isinstance(told, int) and told <= step and event["event"] != "finished"
