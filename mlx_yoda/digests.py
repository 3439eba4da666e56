"""Digests of whole files, computed once: they are remembered in the user's cache."""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from mlx_yoda import files
from mlx_yoda.errors import UserError

_PIECE = 16 * 2**20  # bytes that one thread hashes at once


def digest_of(path: Path) -> str:
    """The digest of all bytes of a file, from the cache if the file is the one that was read.

    A file is known by its path, number, size and times, to the nanosecond; where any of them has
    changed, as after a copy or a touch, it is read again.

    Returns:
        64 hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    path = path.resolve()
    state = _state(path)
    with suppress(OSError, UserError, ValueError):  # not there, another user's, or damaged
        digest = _memo(path, state).read_text(encoding="utf-8")
        if len(bytes.fromhex(digest)) == 32:
            return digest
    digest = _computed(path, path.stat().st_size)
    if _state(path) == state:  # else it is of neither the old content nor the new
        with suppress(OSError, UserError):  # then it is computed again next time
            memo = _memo(path, state)
            memo.parent.mkdir(parents=True, exist_ok=True)
            files.sweep(memo.parent)
            files.write_text(memo, digest)
    return digest


def _state(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _memo(path: Path, state: tuple[int, ...]) -> Path:
    """Where the digest of a file in this state is kept."""
    name = sha256(repr((str(path), *state)).encode()).hexdigest()[:32]
    return files.cache_folder() / "files" / name


def _computed(path: Path, size: int) -> str:
    """SHA-256 of the SHA-256 of a file's pieces, which several threads compute."""

    def digest(start: int) -> bytes:
        with path.open("rb") as file:
            file.seek(start)
            return sha256(file.read(_PIECE)).digest()

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return sha256(b"".join(pool.map(digest, range(0, size, _PIECE)))).hexdigest()
