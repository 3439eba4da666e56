"""Replacing the run in an output folder: the old one goes only when the new one has a checkpoint.

    run/
      .mlx-yoda.json      # name → SHA-256 of the files that the run in this folder has written
      .overwriting/       # the old run while it is moved; undone if that is interrupted
      .overwritten/       # the old run as a whole, until the new one has a checkpoint or an adapter

Only what a run has written is moved. Folders of versions without a list of files are a run's where
metrics.jsonl holds its events.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from mlx_yoda import files
from mlx_yoda.adapters.json_object import read_object
from mlx_yoda.adapters.peft import CONFIG_FILE, TENSOR_FILE
from mlx_yoda.errors import UserError
from mlx_yoda.hub.card import CARD_FILE, LOSS_FILE, is_ours
from mlx_yoda.hub.record import METRICS_FILE, SETTINGS_FILE
from mlx_yoda.model.tokenizer_files import TOKENIZER_FILES
from mlx_yoda.report.jsonl import read
from mlx_yoda.report.page import REPORT_FILE
from mlx_yoda.train.checkpoint import OPTIMIZER_FILE, checkpoints
from mlx_yoda.train.integrity import SEAL, flaw

WRITTEN_FILE = ".mlx-yoda.json"
_MOVING, _OLD = ".overwriting", ".overwritten"
_FILES = (CONFIG_FILE, TENSOR_FILE, SETTINGS_FILE, REPORT_FILE, LOSS_FILE, *TOKENIZER_FILES)
_GENERATOR = '<meta name="generator" content="mlx-yoda">'


def record_writing(folder: Path, *names: str) -> None:
    """Write down that the run is about to write files, whatever their content: all, or some."""
    files.write_json(folder / WRITTEN_FILE, _known(folder) | dict.fromkeys(names or _FILES))


def record_written(folder: Path, *names: str) -> None:
    """Write down the content of the files that the run has written: of all, or of some."""
    there = {name for name in names or _FILES if (folder / name).is_file()}
    others = {name: sha for name, sha in _known(folder).items() if sha is not None}
    written = {name: files.sha256(folder / name) for name in sorted(there)}
    files.write_json(folder / WRITTEN_FILE, others | written)


def check_replaceable(folder: Path) -> None:
    """See that all that a run would replace in a folder was written by a run.

    Raises:
        UserError: some of it was not, or has been changed since.
    """
    own = set(_own(folder))
    would_be_lost = [
        *(folder / name for name in (*_FILES, METRICS_FILE) if (folder / name).exists()),
        *checkpoints(folder),
    ]
    for path in would_be_lost:
        if path not in own:
            raise UserError(
                f"{path} was not written by a run, or has been changed since, and --overwrite "
                "would replace it: move it, or name another folder with --output-dir."
            )


def set_aside(folder: Path) -> None:
    """Move the run in a folder away, as a whole or not at all, or remove one without a checkpoint.

    A run that was set aside before, and whose successor has no checkpoint, stays.
    """
    undo_interrupted(folder)
    if (folder / _OLD).is_dir() and not _usable(folder):
        _remove(_own(folder))
        return
    drop_old(folder)
    if not (own := list(_own(folder))):
        return
    (folder / _MOVING).mkdir()
    for path in own:
        (folder / _MOVING / path.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
        os.rename(path, folder / _MOVING / path.relative_to(folder))
    os.rename(folder / _MOVING, folder / _OLD)


def undo_interrupted(folder: Path) -> None:
    """Move back what was being moved when the process was killed."""
    if (folder / _MOVING).is_dir():
        _move_back(folder / _MOVING, folder)


def old_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run that was being set aside, or was for one that has none itself."""
    moved = checkpoints(folder / _MOVING)
    return moved if moved or _usable(folder) else checkpoints(folder / _OLD)


def restore_old(folder: Path) -> None:
    """Put a run back that was set aside, in place of one that has no checkpoint."""
    undo_interrupted(folder)
    if (folder / _OLD).is_dir() and not _usable(folder):
        _remove(_own(folder))
        os.rename(folder / _OLD, folder / _MOVING)  # so that it is continued if interrupted
        undo_interrupted(folder)


def drop_old(folder: Path) -> None:
    """Remove a run that was set aside."""
    if (folder / _OLD).is_dir():
        files.remove_directory(folder / _OLD)


def _usable(folder: Path) -> bool:
    return (folder / TENSOR_FILE).exists() or any(not flaw(path) for path in checkpoints(folder))


def _own(folder: Path) -> Iterator[Path]:
    """Everything in a folder that a run has written there."""
    begun, written = _began(folder), _written(folder)
    yield from filter(_is_our_checkpoint, checkpoints(folder))
    for events in folder.glob("runs/*/events.out.tfevents.*"):  # TensorBoard's
        if begun:
            yield events
    for name in _FILES:
        path = folder / name
        if path.is_file() and _is_ours(path, written, begun):
            yield path
    if (folder / CARD_FILE).is_file() and is_ours(folder / CARD_FILE):
        yield folder / CARD_FILE
    if begun:  # these two tell what is a run's, and come last
        yield folder / METRICS_FILE
    if written is not None:
        yield folder / WRITTEN_FILE


def _is_ours(path: Path, written: dict[str, str | None] | None, begun: bool) -> bool:
    if written and path.name in written:
        return written[path.name] in (None, files.sha256(path))
    if path.name == REPORT_FILE:  # which `report` writes again
        return _GENERATOR in path.read_text(encoding="utf-8", errors="replace")
    if path.name == SETTINGS_FILE:
        return begun and written is None and _as_written(path)
    return begun and written is None


def _written(folder: Path) -> dict[str, str | None] | None:
    """The list of files; None for a run of a version that kept none."""
    try:
        return read_object(folder / WRITTEN_FILE)
    except UserError:
        return None


def _known(folder: Path) -> dict[str, str | None]:
    """The list of files; of a run of a version that kept none, those that are there."""
    written = _written(folder)
    if written is not None:
        return written
    return {name: files.sha256(folder / name) for name in _FILES if (folder / name).is_file()}


def _began(folder: Path) -> bool:
    """Whether metrics.jsonl is that of a run."""
    metrics = folder / METRICS_FILE
    return metrics.is_file() and any(event["event"] == "started" for event in read(metrics))


def _as_written(settings: Path) -> bool:
    """Whether a config.yaml has no comments: a run writes none, and has none to lose."""
    lines = settings.read_text(encoding="utf-8", errors="replace").splitlines()
    return not any(line.lstrip().startswith("#") or " #" in line for line in lines)


def _is_our_checkpoint(checkpoint: Path) -> bool:
    """Whether it has nothing but what we write; Transformers' have a trainer_state.json too."""
    found = {path.name for path in checkpoint.iterdir() if not path.name.startswith(".")}
    if found <= {CONFIG_FILE, TENSOR_FILE, OPTIMIZER_FILE, SEAL}:
        return True
    try:
        state = read_object(checkpoint / SEAL)
    except UserError:
        return False
    named = state.get("files")
    return isinstance(named, dict) and found <= {*named, SEAL}


def _move_back(source: Path, folder: Path) -> None:
    """Rename what is in one folder into the other; what is there already stays behind."""
    for path in list(source.iterdir()):
        target = folder / path.name
        if not target.exists():
            os.rename(path, target)
        elif path.is_dir() and target.is_dir():  # `runs`
            _move_back(path, target)
    with contextlib.suppress(OSError):  # it is not empty
        source.rmdir()


def _remove(paths: Iterable[Path]) -> None:
    for path in list(paths):
        files.remove_directory(path) if path.is_dir() else path.unlink()
