"""Tokens in flat arrays, in memory or mapped from a file; segments are read when asked for."""

import zlib
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import BinaryIO, TypeVar

import numpy as np

T = TypeVar("T")


@dataclass(frozen=True)
class Segments:
    """Runs of tokens, one after the other.

    Attributes:
        tokens: `(N,)` int32, or uint16 where the vocabulary is small and they lie on disk.
        supervised: `(N,)` bool, whether a token is a target; False at each segment's start.
        lengths: `(S,)` int32, tokens of each segment; they add up to N.
        targets: `(S,)` int32, how many of them are targets.
        checksums: `(S,)` uint32, of each segment's tokens as int32 and of its targets.
        largest: `(S,)` uint32, the largest token id of each segment.
    """

    tokens: np.ndarray
    supervised: np.ndarray
    lengths: np.ndarray
    targets: np.ndarray
    checksums: np.ndarray
    largest: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def _starts(self) -> np.ndarray:
        starts: np.ndarray = np.cumsum(self.lengths, dtype=np.int64) - self.lengths
        return starts

    def read(self, segment: int) -> tuple[np.ndarray, np.ndarray]:
        """The tokens `(L,)` int32 and targets `(L,)` bool of one segment."""
        start = int(self._starts[segment])
        place = slice(start, start + int(self.lengths[segment]))
        return np.asarray(self.tokens[place], np.int32), np.asarray(self.supervised[place])


def checksum(tokens: np.ndarray, supervised: np.ndarray) -> int:
    """CRC-32 of one segment, `(L,)` int32 and `(L,)` bool."""
    return zlib.crc32(supervised.tobytes(), zlib.crc32(tokens.tobytes()))


class Writer:
    """Appends segments to two files, which may be in memory; what it keeps is 16 bytes a segment.

    Attributes:
        lengths, targets, checksums, largest: as in `Segments`.
    """

    def __init__(self, tokens: BinaryIO, supervised: BinaryIO, dtype: type[np.generic]) -> None:
        self._tokens, self._supervised, self._dtype = tokens, supervised, dtype
        self.lengths, self.targets = array("i"), array("i")
        self.checksums, self.largest = array("I"), array("I")

    def add(self, tokens: np.ndarray, supervised: np.ndarray) -> None:
        """Append one segment, `(L,)` int32 and `(L,)` bool."""
        self._tokens.write(tokens.astype(self._dtype, copy=False).tobytes())
        self._supervised.write(supervised.tobytes())
        self.lengths.append(len(tokens))
        self.targets.append(int(np.count_nonzero(supervised)))
        self.checksums.append(checksum(tokens, supervised))
        self.largest.append(int(tokens.max(initial=0)))

    def add_all(self, pieces: Iterable[tuple[np.ndarray, np.ndarray]]) -> None:
        """Append many."""
        for piece in pieces:
            self.add(*piece)

    def index(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Lengths, targets, checksums and largest ids as arrays `(S,)`."""
        return (
            np.array(self.lengths, np.int32),
            np.array(self.targets, np.int32),
            np.array(self.checksums, np.uint32),
            np.array(self.largest, np.uint32),
        )


def in_memory(write: Callable[[Writer], T]) -> tuple[Segments, T]:
    """The segments that `write` appends, and what it returns."""
    tokens, supervised = BytesIO(), BytesIO()
    writer = Writer(tokens, supervised, np.int32)
    result = write(writer)
    flat = np.frombuffer(tokens.getbuffer(), np.int32)
    return Segments(flat, np.frombuffer(supervised.getbuffer(), bool), *writer.index()), result
