"""Files that are there whole or not at all: written aside, synced, renamed.

What is being written or removed is called `.<name>.<process>@<host>.<random>.aside`. A process that
is killed may leave it behind; `sweep` removes it.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from mlx_yoda.errors import UserError, first_line
from mlx_yoda.secrets import redact

_ASIDE = ".aside"
_WRITER = re.compile(r"\.(\d+)@([0-9a-f]{8})\.\w+\.aside$")
_WRITE_FAILED = re.compile(r"^\[(write|save_safetensors)\]|\(os error \d+\)")
_ABANDONED = 7 * 24 * 3600  # seconds untouched, where no one here can ask whether its writer lives


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file as a whole; after a crash it holds the old content or the new."""
    with _file_aside(path) as aside:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            _flush(file.fileno())
        os.chmod(aside, 0o666 & ~_umask())
        os.replace(aside, path)
    _sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, UTF-8, and without access tokens."""
    write_bytes(path, redact(text).encode())


def write_json(path: Path, value: Any) -> None:
    """As `write_bytes`, indented and with a final newline."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def append_text(path: Path, text: str) -> None:
    """Add to the end of a file, or if that fails leave it as it was; without access tokens."""
    with path.open("ab", buffering=0) as file:
        end, content = file.tell(), redact(text).encode()
        try:
            while content:
                content = content[file.write(content) :]
        except OSError:
            file.truncate(end)
            raise


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give the name of a file to write, which takes the name `path` once it is synced.

    Raises:
        FileExistsError: `path` is there already.
    """
    if path.exists():
        raise FileExistsError(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _file_aside(path) as aside:
        yield aside
        _sync(aside)
        os.chmod(aside, 0o666 & ~_umask())
        os.rename(aside, path)
    _sync(path.parent)


@contextmanager
def new_directory(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Give a folder to fill, which takes the name `path` once it is filled and synced.

    Args:
        path: the folder to be.
        replace: whether a folder of that name makes way at that moment.

    Raises:
        FileExistsError: `path` is there already and may not be replaced.
    """
    if path.exists() and not replace:
        raise FileExistsError(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _blamed_on(path):
        aside = _directory_aside(path)
        try:
            yield aside
            for inner in aside.rglob("*"):
                _sync(inner)
            _sync(aside)
            os.chmod(aside, 0o777 & ~_umask())
            if path.exists():
                remove_directory(path)
            os.rename(aside, path)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
    _sync(path.parent)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one sentence that `path` cannot be written, whichever library was writing.

    Raises:
        UserError: the disk is full, a file is too large, or a folder may not be written to.
    """
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        reason = str(error.strerror or error)
    except Exception as error:  # MLX and libraries in Rust have no kind of their own for it
        if not _WRITE_FAILED.search(str(error)):
            raise
        reason = first_line(error).rstrip(".")
    else:
        return
    raise UserError(f"{path} cannot be written: {reason}.")


def remove_directory(path: Path) -> None:
    """Remove a folder, which loses its name first, so that it is never half there."""
    aside = _directory_aside(path)
    os.rename(path, aside)
    shutil.rmtree(aside)


def sweep(folder: Path, name: str | None = None) -> None:
    """Remove what processes that are gone have left aside in a folder, of one name or of any.

    A process is known by its number and its host. What another host has written, whose processes
    cannot be seen from here, is removed when it has not been touched for a week. A number that has
    been given to another process since only delays the removal.
    """
    for path in folder.glob(f".*{_ASIDE}"):
        if path.name.startswith(f".{name}." if name else ".") and _is_abandoned(path):
            with contextlib.suppress(OSError):  # another process may be sweeping too
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def sha256(path: Path) -> str:
    """The hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _blamed_on(path: Path) -> Iterator[None]:
    """Say `path` in errors over what is aside, which has a name that nobody knows."""
    try:
        yield
    except OSError as error:
        if _ASIDE in str(error.filename):
            error.filename = str(path)
        raise


@contextmanager
def _file_aside(path: Path) -> Iterator[Path]:
    """A file to be renamed; it is removed if that fails."""
    with _blamed_on(path):
        handle, name = tempfile.mkstemp(_ASIDE, _prefix(path), path.parent)
        os.close(handle)
        aside = Path(name)
        try:
            yield aside
        except BaseException:
            aside.unlink(missing_ok=True)
            raise


def _directory_aside(path: Path) -> Path:
    return Path(tempfile.mkdtemp(_ASIDE, _prefix(path), path.parent))


def _prefix(path: Path) -> str:
    return f".{path.name}.{os.getpid()}@{_host()}."


@cache
def _host() -> str:
    """What tells this host's process numbers from others', a container's among them."""
    try:
        numbers = os.readlink("/proc/self/ns/pid")
    except OSError:  # macOS
        numbers = ""
    return hashlib.sha256(f"{os.uname().nodename} {numbers}".encode()).hexdigest()[:8]


def _is_abandoned(aside: Path) -> bool:
    """Whether the process that was writing is gone."""
    writer = _WRITER.search(aside.name)
    if writer and writer[2] == _host():
        return not _is_running(int(writer[1]))
    from datetime import UTC, datetime  # not at the top: help does without

    try:
        touched = max(path.stat().st_mtime for path in (aside, *aside.rglob("*")))
    except OSError:  # it has just gone
        return False
    return datetime.now(UTC).timestamp() - touched > _ABANDONED


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)  # sends nothing
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is another user's
        pass
    return True


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        _flush(handle)
    finally:
        os.close(handle)


def _flush(handle: int) -> None:
    """Bring a file to the disk, on macOS past the drive's own cache where the volume can do it."""
    os.fsync(handle)
    if sys.platform == "darwin":
        with contextlib.suppress(OSError):
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def cache_folder() -> Path:
    """The folder for what is kept between runs: `MLX_YODA_CACHE`, or in the user's caches.

    It need not be there.

    Raises:
        UserError: there is no home folder for it to be in.
    """
    own, user = os.environ.get("MLX_YODA_CACHE"), os.environ.get("XDG_CACHE_HOME")
    folder = Path(os.path.expanduser(own or os.path.join(user or "~/.cache", "mlx-yoda")))
    if str(folder).startswith("~"):
        raise UserError(
            "there is no home folder for the cache; name a folder in the environment variable "
            "MLX_YODA_CACHE."
        )
    return folder
