"""A run as its output folder tells it, ready to be shown."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlx_yoda.config.keys import keys
from mlx_yoda.config.parse import load_config
from mlx_yoda.errors import UserError
from mlx_yoda.report.charts import Point
from mlx_yoda.report.jsonl import read

Values = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """One value of the configuration, as YAML would have it, and whether it is the default."""

    key: str
    value: str
    default: bool


@dataclass(frozen=True)
class Run:
    """What is known of a run.

    Attributes:
        name: how to call it among others.
        folder: where it is.
        events: the lines of metrics.jsonl, oldest first.
        settings: all values of config.yaml; none if it is not there.
    """

    name: str
    folder: Path
    events: Sequence[Values]
    settings: Sequence[Setting]

    def points(self, event: str, key: str, scale: float = 1.0) -> list[Point]:
        """A number of all events of a name, by step."""
        found = [e for e in self.of(event) if isinstance(e.get(key), int | float)]
        return [(float(e["step"]), e[key] * scale) for e in found]

    def of(self, event: str) -> list[Values]:
        """All events of a name."""
        return [found for found in self.events if found.get("event") == event]

    def last(self, event: str, **wanted: Any) -> Values:
        """The newest event of a name with these values, or nothing."""
        found = [e for e in self.of(event) if wanted.items() <= e.items()]
        return found[-1] if found else {}


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read output folders, which may be of runs that are still going on.

    Raises:
        UserError: one of them holds no metrics, or its files cannot be read.
    """
    names = [folder.resolve().name for folder in folders]
    if len({*names}) < len(names):
        names = [str(folder) for folder in folders]
    return [_read(folder, name) for folder, name in zip(folders, names, strict=True)]


def _read(folder: Path, name: str) -> Run:
    metrics, settings = folder / "metrics.jsonl", folder / "config.yaml"
    try:
        events = read(metrics)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{folder} has no metrics.jsonl: name the output folder of a run."
        ) from None
    except OSError as error:
        raise UserError(f"{metrics} cannot be read: {error}.") from None
    if not events:
        raise UserError(f"{metrics} holds no events: the run has not begun.")
    return Run(name, folder, events, _settings(settings) if settings.is_file() else ())


def _settings(file: Path) -> list[Setting]:
    sections = asdict(load_config(file))
    return [
        Setting(path, _written(sections[key.section][key.name]), _is_default(key, sections))
        for path, key in keys().items()
    ]


def _is_default(key: Any, sections: Values) -> bool:
    return bool(sections[key.section][key.name] == key.default)


def _written(value: Any) -> str:
    match value:
        case None | True | False:
            return {None: "null", True: "true", False: "false"}[value]
        case list():
            return ", ".join(map(str, value))
        case dict():
            return ", ".join(f"{k}: {_written(v)}" for k, v in value.items()) or "–"  # noqa: RUF001
        case float():
            return f"{value:g}"
        case _:
            return str(value)
