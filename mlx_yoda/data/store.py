"""Tokens on disk: written once, as a whole or not at all, and mapped into memory ever after.

A store is a folder named by a fingerprint in `~/.cache/mlx-yoda/tokens`: the arrays of `Segments`
and store.json, which tells their sizes and the index's digest. Nothing in it is trusted: at the
start sizes, index and some segments are checked, and each segment again when it is read.
"""

import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from mlx_yoda import files
from mlx_yoda.data.segments import Segments, Writer, checksum
from mlx_yoda.errors import UserError

FORMAT = 2
_TOKENS, _SUPERVISED, _INDEX, _TOLD = "tokens.bin", "supervised.bin", "index.npy", "store.json"
_SAMPLES = 64  # segments that are checked at the start
_SMALL = 1 << 16  # a vocabulary of so many fits into uint16

Build = Callable[[Writer], dict[str, Any]]


class Damaged(ValueError):
    """A store is not as it was written."""


@dataclass(frozen=True)
class Stored(Segments):
    """Segments on disk, each of them checked when it is read.

    Attributes:
        folder: the store.
    """

    folder: Path

    def read(self, segment: int) -> tuple[np.ndarray, np.ndarray]:
        """As `Segments.read`.

        Raises:
            UserError: the segment is damaged; the store is removed, so that it is built again.
        """
        try:
            return self.checked(segment)
        except Damaged as error:
            with suppress(OSError):  # another process may have done it
                files.remove_directory(self.folder)
            raise UserError(
                f"the cached tokens in {self.folder} are damaged ({error}) and were removed; start "
                "again, with --resume if the run has a checkpoint, and they are made anew"
            ) from None

    def checked(self, segment: int) -> tuple[np.ndarray, np.ndarray]:
        """As `read`, but the store stays.

        Raises:
            Damaged: the segment is not what was written.
        """
        tokens, supervised = super().read(segment)
        if checksum(tokens, supervised) != self.checksums[segment]:
            raise Damaged(f"segment {segment} has another checksum")
        return tokens, supervised


def folder(fingerprint: str) -> Path:
    """Where the tokens of this fingerprint are, or will be."""
    return files.cache_folder() / "tokens" / fingerprint


def cached(
    folder: Path, vocabulary: int, build: Build, waiting: Callable[[], None]
) -> tuple[Segments, dict[str, Any]]:
    """Open a store, or build it; of several programs that want it one builds and others wait.

    Args:
        folder: the store.
        vocabulary: a number above every token id.
        build: writes the segments, and returns what else to keep, as JSON has it.
        waiting: is called if another program has it in hand.

    Returns:
        The segments, and what else was kept.

    Raises:
        UserError: there is no room for it, or the folder cannot be written to.
    """
    if whole := _opened(folder):  # also where nothing may be written, as in a shared cache
        return whole
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder, waiting):
            found = _opened(folder)
            if found is None:
                files.sweep(folder.parent)
                _build(folder, np.uint16 if vocabulary <= _SMALL else np.int32, build)
                found = _checked(folder)
            return found
    except OSError as error:
        raise UserError(
            f"the tokens cannot be kept in {folder.parent}: {error.strerror or error}; make room "
            "there, or name another folder in the environment variable MLX_YODA_CACHE"
        ) from None


def size(folder: Path) -> int:
    """Bytes of a store."""
    return sum(path.stat().st_size for path in folder.iterdir())


@contextmanager
def _alone(folder: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a lock that ends with the process, whatever ends it."""
    with folder.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(folder: Path, dtype: type[np.generic], build: Build) -> None:
    with files.new_directory(folder, replace=True) as aside:
        with (aside / _TOKENS).open("wb") as tokens, (aside / _SUPERVISED).open("wb") as supervised:
            writer = Writer(tokens, supervised, dtype)
            kept = build(writer)
        index = np.stack([part.astype(np.uint32) for part in writer.index()])  # (4, S)
        np.save(aside / _INDEX, index)
        told = {
            "format": FORMAT,
            "dtype": np.dtype(dtype).name,
            "tokens": int(index[0].sum(dtype=np.int64)),
            "index": sha256(index.tobytes()).hexdigest(),
            "kept": kept,
        }
        files.write_bytes(aside / _TOLD, json.dumps(told).encode())  # the data's words as they are


def _opened(folder: Path) -> tuple[Stored, dict[str, Any]] | None:
    """Open a store if it is there and intact."""
    try:
        return _checked(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _checked(folder: Path) -> tuple[Stored, dict[str, Any]]:
    """Open a store.

    Raises:
        OSError, ValueError, KeyError, TypeError: it is damaged.
    """
    told = json.loads((folder / _TOLD).read_text(encoding="utf-8"))
    index = np.load(folder / _INDEX)
    if told["format"] != FORMAT or sha256(index.tobytes()).hexdigest() != told["index"]:
        raise Damaged("the index is not what was written")
    lengths, targets, checksums, largest = index
    stored = Stored(
        np.memmap(folder / _TOKENS, np.dtype(told["dtype"]), "r"),
        np.memmap(folder / _SUPERVISED, bool, "r"),
        lengths.astype(np.int32),
        targets.astype(np.int32),
        checksums,
        largest,
        folder,
    )
    total = int(stored.lengths.sum(dtype=np.int64))
    if not len(stored.tokens) == len(stored.supervised) == told["tokens"] == total:
        raise Damaged("a file is shorter or longer than it was")
    for segment in np.unique(np.linspace(0, len(stored) - 1, _SAMPLES).astype(int)).tolist():
        stored.checked(segment)
    return stored, told["kept"]
