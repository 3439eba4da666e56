"""File formats: each reader turns one file into rows, or says where the file is broken."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlx_yoda.data.rows import Row, kind, shown
from mlx_yoda.errors import UserError, first_line

_BATCH = 256  # rows of a Parquet file that are unpacked at a time
_ROW_BYTES = 256  # that a row takes in Python, however little is in it
_LARGEST = 4 << 30  # bytes that a Parquet file may unpack to


def read_rows(path: Path) -> list[Row]:
    """All rows of a .csv, .json, .jsonl or .parquet file.

    A .json file is a list of objects, or has one object a line. Text is UTF-8.

    Raises:
        UserError: the suffix is unknown, or the file cannot be read, is broken or holds no row.
    """
    if path.suffix.lower() not in READERS:
        raise UserError(f"{path}: data files end in {', '.join(READERS)}, not in '{path.suffix}'")
    if path.exists() and not path.is_file():  # a pipe would never end
        raise UserError(f"{path} is no file; a folder of data has a train file in it")
    try:
        rows = READERS[path.suffix.lower()](path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    if not rows:
        raise UserError(f"{path} holds no rows")
    return rows


def _read_json(path: Path) -> list[Row]:
    text = _text(path)
    if not text.lstrip().startswith("["):
        return _json_lines(path, text)
    values = _parse(text, path, first_line=1)
    return [_object(value, f"{path}, row {i}") for i, value in enumerate(values, start=1)]


def _read_jsonl(path: Path) -> list[Row]:
    return _json_lines(path, _text(path))


def _json_lines(path: Path, text: str) -> list[Row]:
    # Not str.splitlines(), which also breaks at characters that JSON strings may hold (U+2028).
    lines = enumerate(text.split("\n"), start=1)
    return [
        _object(_parse(line, path, number), f"{path}:{number}")
        for number, line in lines
        if line.strip()
    ]


def _parse(text: str, path: Path, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        reason = f"{error.msg} at column {error.colno}"
    except (ValueError, RecursionError) as error:  # an endless number, endless nesting
        line, reason = first_line, str(error)
    raise UserError(f"{path}:{line} is broken JSON ({reason})")


def _object(value: object, place: str) -> Row:
    if not isinstance(value, dict):
        raise UserError(f"{place}: a row must be a JSON object, not {kind(value)}")
    return Row(value, place)


def _read_csv(path: Path) -> list[Row]:
    lines = _csv_lines(path, _text(path))
    _, header = next(lines, (1, []))
    doubled = sorted({name for name in header if header.count(name) > 1})
    if doubled:
        raise UserError(f"{path}:1: the column {shown(doubled[0])} is there more than once")
    rows = []
    for line, cells in lines:
        if len(cells) != len(header):
            raise UserError(
                f"{path}:{line} has {len(cells)} cells, but the first line names {len(header)} "
                "columns; text with commas must stand in double quotes"
            )
        rows.append(Row(dict(zip(header, cells, strict=True)), f"{path}:{line}"))
    return rows


def _csv_lines(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row that is not blank, and the line it starts on."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    start = 1
    try:
        for cells in reader:
            if cells:
                yield start, cells
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}:{start} is broken CSV ({error})") from None


def _read_parquet(path: Path) -> list[Row]:
    import pyarrow
    import pyarrow.parquet  # 0.4 s, and most data sets are text

    try:
        # By its handle, so that the file's folders are not read as partitions.
        with path.open("rb") as file:
            values = _unpacked(pyarrow.parquet.ParquetFile(file), path)
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        raise UserError(f"{path} is broken Parquet ({first_line(error)})") from None
    return [Row(value, f"{path}, row {i}") for i, value in enumerate(values, start=1)]


def _unpacked(table: Any, path: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet file, whose few bytes may stand for more than any memory holds."""
    values: list[dict[str, Any]] = []
    size = 0
    for batch in table.iter_batches(batch_size=_BATCH):
        size += max(sum(map(_unpacked_bytes, batch.columns)), batch.num_rows * _ROW_BYTES)
        if size > _LARGEST:
            raise UserError(f"{path} unpacks to more than {_LARGEST >> 30} GB; split it")
        values += batch.to_pylist()
    return values


def _unpacked_bytes(column: Any) -> int:
    import pyarrow.compute

    kind = column.type
    if pyarrow.types.is_dictionary(kind) and pyarrow.types.is_string(kind.value_type):
        lengths = pyarrow.compute.binary_length(column.dictionary)  # each is there many times
        return pyarrow.compute.sum(lengths.take(column.indices)).as_py() or 0
    return int(column.nbytes)


def _text(path: Path) -> str:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line} is not UTF-8; save the file in that encoding") from None
    if (at := data.find(b"\0")) >= 0:
        line = data.count(b"\n", 0, at) + 1
        raise UserError(f"{path}:{line} holds a NUL byte, as UTF-16 and no text has; save as UTF-8")
    return text


READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".csv": _read_csv,
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
