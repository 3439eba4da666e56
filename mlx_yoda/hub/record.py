"""What an output folder remembers of its run: the adapter's keys, the configuration, the events."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_yoda.adapters.json_object import read_object
from mlx_yoda.adapters.peft import CONFIG_FILE, TENSOR_FILE
from mlx_yoda.config.parse import load_config
from mlx_yoda.config.schema import Config
from mlx_yoda.errors import UserError
from mlx_yoda.report.jsonl import read

METRICS_FILE, SETTINGS_FILE = "metrics.jsonl", "config.yaml"

Values = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """A run as its folder tells it.

    Attributes:
        folder: the output folder.
        keys: what adapter_config.json says.
        config: how the run was configured; None if the folder has no config.yaml.
        events: the lines of metrics.jsonl, oldest first; none if it has none.
    """

    folder: Path
    keys: Values
    config: Config | None
    events: tuple[Values, ...]

    def last(self, event: str, **wanted: Any) -> Values:
        """The newest event of that name with those values, or an empty one."""
        for found in reversed(self.events):
            if found.get("event") == event and wanted.items() <= found.items():
                return found
        return {}

    @property
    def evaluated(self) -> Values:
        """The evaluation of the adapter that was written, which need not be the last one."""
        kept = self.last("finished").get("kept_step")
        return self.last("evaluate", step=kept) or self.last("evaluate")

    @property
    def base(self) -> str:
        """The base as the adapter names it: a Hub id, or the path of a folder."""
        return str(self.keys.get("base_model_name_or_path") or "")


def read_record(folder: Path) -> Record:
    """Read an output folder, or any folder with a PEFT adapter in it.

    Raises:
        UserError: there is no adapter in it, or one of its files cannot be read.
    """
    for name in (CONFIG_FILE, TENSOR_FILE):
        if not (folder / name).is_file():
            raise UserError(f"{folder} is no finished run: it has no {name}.")
    keys = read_object(folder / CONFIG_FILE)
    settings, metrics = folder / SETTINGS_FILE, folder / METRICS_FILE
    config = load_config(settings) if settings.is_file() else None
    events = read(metrics) if metrics.is_file() else []
    return Record(folder, keys, config, tuple(events))
