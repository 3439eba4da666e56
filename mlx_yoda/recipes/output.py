"""The output folder: refused, replaced or resumed, and never half touched."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from mlx_yoda import files
from mlx_yoda.config.parse import to_yaml
from mlx_yoda.config.schema import Config
from mlx_yoda.errors import UserError
from mlx_yoda.hub.card import CARD_FILE, is_ours
from mlx_yoda.model.tokenizer_files import TOKENIZER_FILES
from mlx_yoda.report.jsonl import JsonLines, rewind
from mlx_yoda.train.checkpoint import checkpoints

_OURS = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "config.yaml",
    "metrics.jsonl",
    "loss.svg",
    *TOKENIZER_FILES,
)


@dataclass(frozen=True)
class Output:
    """A run's folder, looked at but not yet touched.

    Attributes:
        path: the folder.
        checkpoint: where to go on from, or None.
    """

    path: Path
    checkpoint: Path | None

    def begin(self, config: Config, step: int) -> JsonLines:
        """Make the folder ready for a run that starts after `step`, and open its metrics."""
        self.path.mkdir(parents=True, exist_ok=True)
        metrics = self.path / "metrics.jsonl"
        if self.checkpoint is None:
            _clear(self.path)
        else:
            rewind(metrics, step)
        files.write_text(self.path / "config.yaml", to_yaml(config))
        return JsonLines(metrics)


def open_output(path: Path, *, resume: bool | Path, overwrite: bool) -> Output:
    """Decide what to do with a run's folder without touching it.

    Raises:
        UserError: there is something in the folder and neither resume nor overwrite is given, or
            there is nothing to resume from.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; name another folder with --output-dir.")
    if resume:
        return Output(path, _checkpoint(path, resume))
    if not overwrite and path.is_dir() and any(path.iterdir()):
        raise UserError(
            f"the output folder {path} is not empty; go on with --resume, replace the run in it "
            "with --overwrite, or name another with --output-dir."
        )
    return Output(path, None)


def _checkpoint(path: Path, resume: bool | Path) -> Path:
    if isinstance(resume, Path):
        if not resume.is_dir():
            raise UserError(f"there is no checkpoint {resume}.")
        return resume
    found = checkpoints(path) if path.is_dir() else []
    if not found:
        raise UserError(f"there is no checkpoint in {path} to resume from; leave --resume out.")
    return found[-1]


def _clear(path: Path) -> None:
    """Remove what an earlier run wrote, and nothing else."""
    for checkpoint in checkpoints(path):
        shutil.rmtree(checkpoint)
    for name in _OURS:
        (path / name).unlink(missing_ok=True)
    if is_ours(path / CARD_FILE):
        (path / CARD_FILE).unlink(missing_ok=True)
