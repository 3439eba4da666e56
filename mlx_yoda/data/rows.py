"""A row of data, and where it came from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One example as it was found.

    Attributes:
        values: column name to value.
        place: where it is, for messages: `train.jsonl:12` for a line, else `x.parquet, row 12`
            (both counted from 1).
    """

    values: Mapping[str, Any]
    place: str


def kind(value: object) -> str:
    """What a value is, in the words of a message to its author."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list() | tuple():
            return "a list"
        case Mapping():
            return "an object"
        case _:
            return type(value).__name__


def shown(name: object) -> str:
    """What somebody else has written, as a message quotes it: on one line and cut short."""
    text = repr(name) if not isinstance(name, str) else repr(name[:60])
    return text if len(text) <= 60 else f"{text[:59]}…"
