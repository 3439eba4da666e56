"""Whether a checkpoint is whole: its trainer_state.json holds the SHA-256 of every file in it."""

import json
import stat
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from mlx_yoda import files
from mlx_yoda.secrets import redact

SEAL = "trainer_state.json"


class Broken(Exception):
    """A checkpoint is not as it was written; the message says in which way."""


def seal(folder: Path, state: Mapping[str, Any]) -> None:
    """Write trainer_state.json: `state`, size and SHA-256 of its siblings, and its own SHA-256."""
    siblings = {
        path.name: {"size": path.stat().st_size, "sha256": files.sha256(path)}
        for path in sorted(folder.iterdir())
    }
    content = json.loads(redact(json.dumps({**state, "files": siblings})))
    files.write_json(folder / SEAL, {**content, "sha256": _digest(content)})


def resealed(seal: bytes, changed: Mapping[str, bytes]) -> bytes:
    """The trainer_state.json of a checkpoint some of whose files have other bytes now.

    Args:
        seal: the file as it was.
        changed: name → new bytes of its siblings.
    """
    content = json.loads(seal)
    content.pop("sha256", None)
    for name, data in changed.items():
        if name in content.get("files", {}):
            content["files"][name] = {"size": len(data), "sha256": sha256(data).hexdigest()}
    return json.dumps({**content, "sha256": _digest(content)}, indent=2).encode() + b"\n"


def unseal(folder: Path) -> dict[str, Any]:
    """Read trainer_state.json and hold all that it names against the files that are there.

    Files that it does not name may be there, such as a card or what a file manager leaves.

    Raises:
        Broken: a file is missing, or is not the one that was written.
    """
    try:
        content = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        digest = content.pop("sha256")
        siblings = {name: (file["size"], file["sha256"]) for name, file in content["files"].items()}
    except OSError as error:
        raise Broken(f"{SEAL} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Broken(f"{SEAL} is not as it was written") from None
    if digest != _digest(content):
        raise Broken(f"{SEAL} is not as it was written")
    for name, (size, expected) in siblings.items():
        if Path(name).name != name:
            raise Broken(f"{SEAL} names {name!r}, which is no file of the checkpoint")
        _check(folder / name, size, expected)
    return content


def flaw(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None if it is intact."""
    try:
        unseal(folder)
    except Broken as broken:
        return str(broken)
    return None


def _check(path: Path, size: int, digest: str) -> None:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise Broken(f"{path.name} is no file")
        if found.st_size != size:
            raise Broken(f"{path.name} has {found.st_size:,} bytes instead of {size:,}")
        if files.sha256(path) != digest:
            raise Broken(f"{path.name} is not as it was written: its SHA-256 is another")
    except OSError as error:
        raise Broken(f"{path.name} cannot be read: {error.strerror}") from None


def _digest(content: Mapping[str, Any]) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
