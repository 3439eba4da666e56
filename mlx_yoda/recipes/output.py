"""The output folder: refused, replaced or resumed, and never half touched."""

import fcntl
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from mlx_yoda import files
from mlx_yoda.config.parse import to_yaml
from mlx_yoda.config.schema import Config
from mlx_yoda.errors import UserError
from mlx_yoda.hub.record import SETTINGS_FILE
from mlx_yoda.recipes.overwriting import (
    check_replaceable,
    old_checkpoints,
    record_writing,
    record_written,
    restore_old,
    set_aside,
)
from mlx_yoda.report.events import Saved
from mlx_yoda.report.jsonl import JsonLines, read, rewind
from mlx_yoda.train.checkpoint import checkpoints, is_checkpoint, shared_by, step_of
from mlx_yoda.train.integrity import flaw

_LOCK = ".lock"


@dataclass(frozen=True)
class Output:
    """A run's folder, looked at but not yet touched.

    Attributes:
        path: the folder.
        checkpoint: where to go on from, or None.
        notes: which broken checkpoints were passed over.
        overwrite: whether a run that is there is replaced.
    """

    path: Path
    checkpoint: Path | None
    notes: tuple[str, ...] = ()
    overwrite: bool = False

    @property
    def begun(self) -> tuple[int, int] | None:
        """How many processes shared the checkpoint's steps, and the rows of a step."""
        return shared_by(self.checkpoint) if self.checkpoint else None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out of the folder; the lock ends with the process, whatever ends it.

        Raises:
            UserError: another run is in it.
        """
        was_there = self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        with _locked(self.path / _LOCK) as file:
            here = f"process {os.getpid()} on {socket.gethostname()}"
            file.write(f"{here} since {datetime.now():%Y-%m-%d %H:%M:%S}".encode())
            try:
                yield
            finally:
                (self.path / _LOCK).unlink(missing_ok=True)
                if not was_there:
                    with suppress(OSError):  # it has a run in it
                        self.path.rmdir()

    def begin(self, config: Config, step: int) -> JsonLines:
        """Make the folder ready for a run that starts after `step`, and open its metrics."""
        files.sweep(self.path)
        metrics = JsonLines(self.path / "metrics.jsonl")
        if self.checkpoint is None:
            if not self.overwrite:
                _refuse_full(self.path)  # another run may have begun and ended meanwhile
            set_aside(self.path)
        else:
            restore_old(self.path)
            rewind(metrics.path, step)
            self._announce(metrics, step)
        record_writing(self.path, SETTINGS_FILE)
        self.restore(config, anew=True)
        record_written(self.path, SETTINGS_FILE)
        return metrics

    def _announce(self, metrics: JsonLines, step: int) -> None:
        """Note the checkpoint, where a run was killed after it wrote it and before it said so."""
        path = self.path / f"checkpoint-{step}"
        events = read(metrics.path) if metrics.path.exists() else []
        said = any(event["event"] == "save" and event.get("step") == step for event in events)
        if events and path.is_dir() and not said:
            metrics(Saved(step, str(path)))

    def restore(self, config: Config, *, anew: bool = False) -> bool:
        """Write config.yaml, if `anew` or if it has gone with its folder; says whether it had."""
        file = self.path / SETTINGS_FILE
        if file.exists() and not anew:
            return False
        self.path.mkdir(parents=True, exist_ok=True)
        files.write_text(file, to_yaml(config))
        return True


def open_output(
    path: Path, *, resume: bool | Path, overwrite: bool, inputs: Iterable[Path] = ()
) -> Output:
    """Decide what to do with a run's folder without touching it.

    Args:
        path: the folder.
        resume: go on from its newest intact checkpoint, or from that of this folder.
        overwrite: replace the run in it.
        inputs: folders that the run reads, which it may not write to.

    Raises:
        UserError: the folder cannot be written to, is one of the inputs, or another run is in it;
            there is something in it and neither resume nor overwrite is given, or something that
            is no run's; or there is nothing to resume from.
    """
    _check_name(path)
    for source in inputs:
        if source.is_dir() and path.exists() and source.samefile(path):
            raise UserError(
                f"the output folder {path} is one that the run reads; name another with "
                "--output-dir."
            )
    _refuse_locked(path)
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; name another folder with --output-dir.")
    if not _writable(path):
        raise UserError(f"{path} may not be written to; name another folder with --output-dir.")
    if resume:
        return _resumed(path, resume if isinstance(resume, Path) else path)
    if overwrite:
        check_replaceable(path)
    else:
        _refuse_full(path)
    return Output(path, None, overwrite=overwrite)


def _resumed(path: Path, place: Path) -> Output:
    """Go on from a checkpoint, or from the newest intact one in a run's folder."""
    if is_checkpoint(place):
        if broken := flaw(place):
            raise UserError(
                f"{place} is broken: {broken}; --resume by itself takes the newest intact one."
            )
        return Output(path, place)
    found = [*checkpoints(place), *old_checkpoints(place)] if place.is_dir() else []
    passed: list[str] = []
    for checkpoint in sorted(found, key=step_of, reverse=True):
        broken = flaw(checkpoint)
        if broken is None:
            return Output(path, checkpoint, tuple(passed))
        passed.append(f"passed over {checkpoint}, which is broken: {broken}")
    if passed:
        raise UserError(f"there is no intact checkpoint in {place}: {'; '.join(passed)}.")
    if place != path and (there := checkpoints(place.parent)):
        raise UserError(
            f"there is no {place}; {place.parent} has {', '.join(p.name for p in there)}."
        )
    raise UserError(f"there is no checkpoint in {place} to resume from; leave --resume out.")


def _refuse_full(path: Path) -> None:
    if path.is_dir() and any(inner.name != _LOCK for inner in path.iterdir()):
        raise UserError(
            f"the output folder {path} is not empty; go on with --resume, replace the run in it "
            "with --overwrite, or name another with --output-dir."
        )


def _writable(path: Path) -> bool:
    """Whether a folder, or the nearest one above it that exists, may be written to."""
    nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
    return os.access(nearest, os.W_OK | os.X_OK)


def _check_name(path: Path) -> None:
    """Refuse what can be the name of no folder, before a run has been for nothing.

    Raises:
        UserError: it is.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(f"train.output_dir: {str(path)!r} is not UTF-8.") from None
    if "\0" in str(path):
        raise UserError(f"train.output_dir: {str(path)!r} holds a NUL character.")


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """Hold the lock of a folder.

    Where a network disk has no locks the run goes on without one.
    """
    while True:
        file = path.open("a+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise _in_use(path) from None
        except OSError:
            pass
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            break  # else it was removed by the run that held it
        file.close()
    with file:
        file.truncate(0)
        yield file


def _refuse_locked(path: Path) -> None:
    """Say that another run is in a folder before anything is loaded."""
    with suppress(OSError), (path / _LOCK).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _in_use(path / _LOCK) from None


def _in_use(lock: Path) -> UserError:
    with suppress(OSError):
        if holder := lock.read_text(encoding="utf-8", errors="replace"):
            return UserError(
                f"another run is writing to {lock.parent}: {holder}; wait for it, or name another "
                "folder with --output-dir."
            )
    return UserError(f"another run is writing to {lock.parent}; name another with --output-dir.")
