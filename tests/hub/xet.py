"""Where a Xet store keeps what: from a file's SHA-256 to its Xet hash, by reading its shards.

A shard is a header of 48 bytes and then, for each file, a record of 48 bytes (its hash, flags,
count of segments), its segments, their verification, and its SHA-256, each in records of 48 bytes
(https://huggingface.co/docs/xet/shard). The store itself is hf_xet's own, in a folder.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

_RECORD = 48
_VERIFIED, _NAMED = 1 << 31, 1 << 30


def xet_hash(store: Path, sha256: str) -> str | None:
    """The hash under which the store has the file, or None if it has not."""
    for shard in store.rglob("shards/*.mdb"):
        for name, found in _files(shard.read_bytes()):
            if found == sha256:
                return name
    return None


def _files(shard: bytes) -> Iterator[tuple[str, str | None]]:
    at = _RECORD
    while shard[at : at + 32] != b"\xff" * 32:
        flags, segments = struct.unpack_from("<II", shard, at + 32)
        name, at = _hex(shard, at), at + _RECORD * (1 + segments)
        at += _RECORD * segments if flags & _VERIFIED else 0
        sha256 = _hex(shard, at) if flags & _NAMED else None
        at += _RECORD if flags & _NAMED else 0
        yield name, sha256


def _hex(shard: bytes, at: int) -> str:
    """A hash is four numbers of 64 bits, little end first."""
    return "".join(f"{number:016x}" for number in struct.unpack_from("<4Q", shard, at))
