"""JSON as RFC 8259 has it; Python's own reader also takes NaN, and of a name given twice the last.

A file that says two things about one name is read differently by different programs, so it is
read by none here.
"""

import json
from typing import Any, NoReturn


def loads(text: str | bytes) -> Any:
    """Parse JSON.

    Raises:
        ValueError: it is no JSON, holds NaN or Infinity, or has a name twice in an object.
        RecursionError: it is nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)


class DuplicateKeyError(ValueError):
    """An object has a name twice; `key` is the name."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the name {key[:80]!r} is there twice in one object")
        self.key = key


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise DuplicateKeyError(key)
        found[key] = value
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
