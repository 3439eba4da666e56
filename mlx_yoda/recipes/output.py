"""The output folder: refused, replaced or resumed, and never half touched."""

import os
from dataclasses import dataclass
from pathlib import Path

from mlx_yoda import files
from mlx_yoda.config.parse import to_yaml
from mlx_yoda.config.schema import Config
from mlx_yoda.errors import UserError
from mlx_yoda.hub.card import CARD_FILE, is_ours
from mlx_yoda.model.tokenizer_files import TOKENIZER_FILES
from mlx_yoda.report.jsonl import JsonLines, rewind
from mlx_yoda.train.checkpoint import checkpoints, is_checkpoint, shared_by
from mlx_yoda.train.integrity import flaw

_OURS = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "config.yaml",
    "metrics.jsonl",
    "loss.svg",
    "report.html",
    *TOKENIZER_FILES,
)


@dataclass(frozen=True)
class Output:
    """A run's folder, looked at but not yet touched.

    Attributes:
        path: the folder.
        checkpoint: where to go on from, or None.
        notes: which broken checkpoints were passed over.
    """

    path: Path
    checkpoint: Path | None
    notes: tuple[str, ...] = ()

    @property
    def begun(self) -> tuple[int, int] | None:
        """How many processes shared the checkpoint's steps, and the rows of a step."""
        return shared_by(self.checkpoint) if self.checkpoint else None

    def begin(self, config: Config, step: int) -> JsonLines:
        """Make the folder ready for a run that starts after `step`, and open its metrics."""
        self.path.mkdir(parents=True, exist_ok=True)
        files.sweep(self.path)
        metrics = self.path / "metrics.jsonl"
        if self.checkpoint is None:
            _clear(self.path)
        else:
            rewind(metrics, step)
        self.restore(config, anew=True)
        return JsonLines(metrics)

    def restore(self, config: Config, *, anew: bool = False) -> bool:
        """Write config.yaml, if `anew` or if it has gone with its folder; says whether it had."""
        file = self.path / "config.yaml"
        if file.exists() and not anew:
            return False
        self.path.mkdir(parents=True, exist_ok=True)
        files.write_text(file, to_yaml(config))
        return True


def open_output(path: Path, *, resume: bool | Path, overwrite: bool) -> Output:
    """Decide what to do with a run's folder without touching it.

    Raises:
        UserError: there is something in the folder and neither resume nor overwrite is given, or
            there is nothing to resume from.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; name another folder with --output-dir.")
    if not _writable(path):
        raise UserError(f"{path} may not be written to; name another folder with --output-dir.")
    if resume:
        return _resumed(path, resume if isinstance(resume, Path) else path)
    if not overwrite and path.is_dir() and any(path.iterdir()):
        raise UserError(
            f"the output folder {path} is not empty; go on with --resume, replace the run in it "
            "with --overwrite, or name another with --output-dir."
        )
    return Output(path, None)


def _resumed(path: Path, place: Path) -> Output:
    """Go on from a checkpoint, or from the newest intact one in a run's folder."""
    if is_checkpoint(place):
        if broken := flaw(place):
            raise UserError(
                f"{place} is broken: {broken}; --resume by itself takes the newest intact one."
            )
        return Output(path, place)
    found = checkpoints(place) if place.is_dir() else []
    passed: list[str] = []
    for checkpoint in reversed(found):
        broken = flaw(checkpoint)
        if broken is None:
            return Output(path, checkpoint, tuple(passed))
        passed.append(f"passed over {checkpoint}, which is broken: {broken}")
    if passed:
        raise UserError(f"there is no intact checkpoint in {place}: {'; '.join(passed)}.")
    raise UserError(f"there is no checkpoint in {place} to resume from; leave --resume out.")


def _writable(path: Path) -> bool:
    """Whether a folder, or the nearest one above it that exists, may be written to."""
    nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
    return os.access(nearest, os.W_OK | os.X_OK)


def _clear(path: Path) -> None:
    """Remove what an earlier run wrote, and nothing else."""
    for checkpoint in checkpoints(path):
        files.remove_directory(checkpoint)
    for events in path.glob("runs/*/events.out.tfevents.*"):  # TensorBoard's
        events.unlink()
    for name in _OURS:
        (path / name).unlink(missing_ok=True)
    if is_ours(path / CARD_FILE):
        (path / CARD_FILE).unlink(missing_ok=True)
