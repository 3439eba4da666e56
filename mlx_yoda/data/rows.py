"""A row of data, and where it came from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlx_yoda.errors import first_line


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


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What stands for a value that Python cannot hold, such as a date in the year 20000.

    Attributes:
        type: the value's type in its file.
        reason: why it cannot be read.
    """

    type: str
    reason: str


_UNCONVERTED = (ValueError, ArithmeticError, LookupError, TypeError, RuntimeError)


def unpacked(table: Any) -> list[dict[str, Any]]:
    """The rows of a pyarrow table or record batch; what cannot be converted is `Unreadable`.

    So such a value matters only where its column is used. Arrow gives each object within a row
    the keys of all others, null where it had none: they are taken out again, as TRL does.
    """
    try:
        rows: list[dict[str, Any]] = table.to_pylist()
    except _UNCONVERTED:
        columns = [map(_value, table.column(i)) for i in range(table.num_columns)]
        rows = [
            dict(zip(table.column_names, cells, strict=True))
            for cells in zip(*columns, strict=True)
        ]
    return [{name: _without_nulls(value) for name, value in row.items()} for row in rows]


def _without_nulls(value: Any) -> Any:
    match value:
        case dict():
            return {key: _without_nulls(item) for key, item in value.items() if item is not None}
        case list():
            return [_without_nulls(item) for item in value]
        case _:
            return value


def _value(cell: Any) -> Any:
    try:
        return cell.as_py()
    except _UNCONVERTED as error:
        return Unreadable(str(cell.type), first_line(error))


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
        case Unreadable():
            return f"a {value.type} that cannot be read ({value.reason})"
        case _:
            return type(value).__name__


def shown(name: object) -> str:
    """What somebody else has written, as a message quotes it: on one line and cut short."""
    text = repr(name) if not isinstance(name, str) else repr(name[:60])
    return text if len(text) <= 60 else f"{text[:59]}…"
