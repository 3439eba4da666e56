"""metrics.jsonl: one event a line; numbers that are not finite are null, as JSON has none."""

import contextlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from mlx_yoda import files
from mlx_yoda.errors import UserError
from mlx_yoda.report.events import Event, Finished, Stepped, Working


class JsonLines:
    """A reporter that appends each event to a file as it comes.

    Steps go in every `logging_steps` only. The file is opened for each line, so that it may be
    moved, and a run that is killed leaves whole lines. What cannot be written, because the disk is
    full or the folder is gone, is written with the next event for which it can; the last one has
    no next.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: list[str] = []

    def __call__(self, event: Event) -> None:
        """Append one line.

        Raises:
            UserError: it is the run's last, and cannot be written.
        """
        if not is_metric(event):
            return
        self._waiting.append(as_line(event) + "\n")
        try:
            files.append_text(self.path, "".join(self._waiting))
            self._waiting.clear()
        except OSError as error:
            if isinstance(event, Finished):
                raise UserError(
                    f"the adapter is written, but the last lines of {self.path} are not: "
                    f"{error.strerror or error}; put that right and finish with --resume."
                ) from None


def is_metric(event: Event) -> bool:
    """Whether an event is kept: all but steps between two logs, and what it is busy with."""
    return not isinstance(event, Working) and (not isinstance(event, Stepped) or event.logged)


def is_told(event: Event) -> bool:
    """Whether a program that follows the run hears of an event: of all but steps between logs."""
    return is_metric(event) or isinstance(event, Working)


def as_line(event: Event) -> str:
    """The event as one line of JSON."""
    return _json(as_dict(event))


def as_dict(event: Event) -> dict[str, Any]:
    """The event with its name first, without what it leaves open, and without `logged`."""
    fields = {key: value for key, value in asdict(event).items() if value is not None}
    fields.pop("logged", None)
    return {"event": event.name, **fields}


def read(path: Path) -> list[dict[str, Any]]:
    """The events in a file; lines that hold none, such as one cut off by a crash, are left out.

    A number that was not finite, which the file has as null, is NaN.
    """
    events = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, RecursionError):  # endless nesting
            events.append(json.loads(line))
    return [_restored(event) for event in events if _is_event(event)]


def _is_event(line: Any) -> bool:
    return isinstance(line, dict) and isinstance(line.get("event"), str)


@contextlib.contextmanager
def blamed(*paths: Path) -> Iterator[None]:
    """Say in one sentence that what metrics files hold cannot be shown.

    Raises:
        UserError: their events are not as a run writes them.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        names = " or ".join(map(str, paths))
        raise UserError(f"{names} holds what no run writes ({error!r}).") from None


def rewind(path: Path, step: int) -> None:
    """Take back what was told after a step, for a run that goes on from there."""
    if path.exists():
        kept = [event for event in read(path) if _is_kept(event, step)]
        files.write_text(path, "".join(_json(event) + "\n" for event in kept))


def _is_kept(event: dict[str, Any], step: int) -> bool:
    told = event.get("step", 0)
    return isinstance(told, int) and told <= step and event["event"] != "finished"


def _json(value: Any) -> str:
    return json.dumps(_finite(value), allow_nan=False)


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_finite(inner) for inner in value]
        case _:
            return value


def _restored(event: dict[str, Any]) -> dict[str, Any]:
    """An event with NaN for the numbers that were not finite."""
    lost = [name for name in _floats().get(event["event"], ()) if event.get(name, 0) is None]
    return event | dict.fromkeys(lost, math.nan)


@cache
def _floats() -> dict[str, list[str]]:
    """Event name → its fields that are floating-point numbers, and always there."""
    return {
        cls.name: [name for name, kind in get_type_hints(cls).items() if kind is float]
        for cls in Event.__subclasses__()
    }
