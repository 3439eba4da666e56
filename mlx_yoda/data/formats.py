"""File formats: each reader turns one file into rows, or says where the file is broken.

They read row by row, so that a file may be larger than the memory.
"""

import importlib.util
import io
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal

from mlx_yoda.data import streams
from mlx_yoda.data.rows import Row, kind, shown, unpacked
from mlx_yoda.data.streams import Extent, Streamed
from mlx_yoda.errors import UserError, first_line

_BATCH = 256  # rows of a Parquet file that are unpacked at a time
_ROW_BYTES = 256  # that a row takes in Python, however little is in it
_LARGEST = 4 << 30  # bytes that a Parquet file may unpack to,
_SWELLS = 100  # or so many times its own
_LONGEST_LINE = 128 << 20  # bytes of a line, and characters of a CSV cell
_LARGEST_JSON = 1 << 30  # bytes of a .json file that is one value, which is held in memory
_LFS = b"version https://git-lfs.github.com/spec/"  # how a pointer of git-lfs begins


def read_rows(*paths: Path) -> Collection[Row]:
    """All rows of .csv, .json, .jsonl or .parquet files: a list, or streamed where they are large.

    A .json file is a list of objects, which may be under a key of one object, and is held in
    memory; or it has one object a line. Text is UTF-8.

    Raises:
        UserError: the suffix is unknown, or a file cannot be read or is broken, or no file holds
            a row; of large files only reading their rows may tell so.
    """
    measured = [_measured(path) for path in paths]
    if sum(size for size, _ in measured) > streams.LARGE:
        extents = [extent for _, extent in measured if extent]
        extent = _joined(extents) if len(extents) == len(paths) else None
        return Streamed(lambda: chain.from_iterable(map(_read, paths)), paths, extent)
    rows = [row for path in paths for row in _read(path)]
    if not rows:
        raise UserError(f"{paths[0]} holds no rows")
    return rows


def _measured(path: Path) -> tuple[int, Extent | None]:
    """About how many bytes a file takes unpacked, and what rows it has if its head tells."""
    if path.suffix.lower() not in READERS:
        raise UserError(f"{path}: data files end in {', '.join(READERS)}, not in '{path.suffix}'")
    if path.exists() and not path.is_file():  # a pipe would never end
        raise UserError(f"{path} is no file; a folder of data has a train file in it")
    try:
        _refuse_pointer(path)
        parquet = path.suffix.lower() == ".parquet"
        return _parquet_extent(path) if parquet else (path.stat().st_size, None)
    except OSError as error:
        raise _unreadable(path, error) from None


def _joined(extents: list[Extent]) -> Extent:
    columns = dict.fromkeys(name for extent in extents for name in extent.columns)
    return Extent(sum(extent.rows for extent in extents), tuple(columns))


def _refuse_pointer(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(_LFS)) == _LFS:
            raise UserError(
                f"{path} is a git-lfs pointer, not the data: run `git lfs pull` in its repository, "
                "or download the file itself"
            )


def _read(path: Path) -> Iterator[Row]:
    try:
        yield from READERS[path.suffix.lower()](path)
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path} cannot be read: {error.strerror or error}")


def rows_key(path: Path) -> str | None:
    """The key under which one object, the whole of a .json file, has its rows; else None.

    Raises:
        UserError: the file cannot be read or is broken, or several keys have rows.
    """
    if path.suffix.lower() != ".json" or _layout(path) != "value":
        return None
    return _rows_key(_document(path), path)


def _read_json(path: Path) -> Iterator[Row]:
    if _layout(path) == "lines":
        yield from _read_jsonl(path)
        return
    document = _document(path)
    key = _rows_key(document, path)
    values = document if key is None else document[key]
    if not isinstance(values, list):
        yield _object(values, f"{path}:1")
        return
    place = f"{path}, row" if key is None else f"{path}, {shown(key)} row"
    for number, value in enumerate(values, start=1):
        yield _object(value, f"{place} {number}")


def _layout(path: Path) -> Literal["list", "lines", "value"]:
    """How a .json file holds its rows: in a list, one on each line, or somewhere in one value."""
    lines = (line for _, line in _lines(path, _LARGEST_JSON) if line.strip())
    first, second = next(lines, ""), next(lines, None)
    if first.lstrip().startswith("["):
        return "list"
    if second is None:
        return "value" if first else "lines"
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return "value"
    return "lines"


def _document(path: Path) -> Any:
    if path.stat().st_size > _LARGEST_JSON:
        raise UserError(
            f"{path} is larger than {_LARGEST_JSON >> 30} GB, too large to be read as one value; "
            "write one object a line, which is read a row at a time"
        )
    return _parse("".join(line for _, line in _lines(path, _LARGEST_JSON)), path, first_line=1)


def _rows_key(document: Any, path: Path) -> str | None:
    """The one key with a list of objects; None if the value is a list or a row by itself.

    Messages are a list of objects too, but of one row.
    """
    if not isinstance(document, dict):
        return None
    lists = {
        key: value
        for key, value in document.items()
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
    }
    if any(item.keys() & {"role", "from"} for value in lists.values() for item in value):
        return None
    if len(lists) > 1:
        names = ", ".join(map(shown, list(lists)[:20]))
        raise UserError(
            f"{path} has lists of objects under several keys ({names}); save the one with the "
            "rows as a file of its own"
        )
    return next(iter(lists), None)


def _read_jsonl(path: Path) -> Iterator[Row]:
    for number, line in _lines(path):
        if line.strip():
            yield _object(_parse(line.removesuffix("\n"), path, number), f"{path}:{number}")


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


def _read_csv(path: Path) -> Iterator[Row]:
    lines = _csv_lines(path)
    _, header = next(lines, (1, []))
    _refuse_duplicates(header, f"{path}:1")
    for line, cells in lines:
        if len(cells) != len(header):
            raise UserError(
                f"{path}:{line} has {len(cells)} cells, but the first line names {len(header)} "
                "columns; text with commas must stand in double quotes"
            )
        yield Row(dict(zip(header, cells, strict=True)), f"{path}:{line}")


def _refuse_duplicates(columns: list[str], place: str) -> None:
    doubled = [name for name, times in Counter(columns).items() if times > 1]
    if doubled:
        raise UserError(f"{place}: the column {shown(min(doubled))} is there more than once")


def _csv_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row that is not blank, and the line it starts on."""
    csv = _csv_parser()
    # Within a line the old Mac's carriage returns may end rows too.
    parts = (io.StringIO(line, newline="") if "\r" in line else (line,) for _, line in _lines(path))
    reader = csv.reader(chain.from_iterable(parts), strict=True)
    start = 1
    try:
        for cells in reader:
            if cells:
                yield start, cells
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}:{start} is broken CSV ({error})") from None


def _csv_parser() -> Any:
    """A copy of Python's CSV parser, whose limit for a cell is its own.

    `csv.field_size_limit` counts for the whole process, for other threads and libraries too.
    """
    spec = importlib.util.find_spec("_csv")
    assert spec and spec.loader
    parser: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(parser)
    parser.field_size_limit(_LONGEST_LINE)
    return parser


def _read_parquet(path: Path) -> Iterator[Row]:
    for number, values in enumerate(_parquet_values(path), start=1):
        yield Row(values, f"{path}, row {number}")


def _parquet_values(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, whose few bytes may stand for more than any memory holds."""
    import pyarrow.parquet  # 0.4 s, and most data sets are text

    limit = max(_LARGEST, _SWELLS * path.stat().st_size)
    size = 0
    # By its handle, so that the file's folders are not read as partitions.
    with _parquet_errors(path), path.open("rb") as file:
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=_BATCH):
            size += max(sum(map(_unpacked_bytes, batch.columns)), batch.num_rows * _ROW_BYTES)
            if size > limit:
                raise UserError(f"{path} unpacks to more than {limit >> 30} GB; split it")
            yield from unpacked(batch)


def _parquet_extent(path: Path) -> tuple[int, Extent]:
    """About how many bytes a Parquet file takes unpacked, and what rows it has."""
    import pyarrow.parquet

    with _parquet_errors(path), path.open("rb") as file:
        found = pyarrow.parquet.ParquetFile(file)
        _refuse_duplicates(found.schema_arrow.names, str(path))
        meta = found.metadata
        groups = (meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
        size = max(sum(groups), meta.num_rows * _ROW_BYTES)
        return size, Extent(meta.num_rows, tuple(found.schema_arrow.names))


@contextmanager
def _parquet_errors(path: Path) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        raise UserError(f"{path} is broken Parquet ({first_line(error)})") from None


def _unpacked_bytes(column: Any) -> int:
    import pyarrow.compute

    kind = column.type
    if pyarrow.types.is_dictionary(kind) and pyarrow.types.is_string(kind.value_type):
        lengths = pyarrow.compute.binary_length(column.dictionary)  # each is there many times
        return pyarrow.compute.sum(lengths.take(column.indices)).as_py() or 0
    return int(column.nbytes)


def _lines(path: Path, longest: int | None = None) -> Iterator[tuple[int, str]]:
    """The lines with their ends and numbers.

    They end at a line feed alone, not where `str.splitlines` would also break, at characters
    that JSON strings may hold (U+2028).
    """
    longest = longest or _LONGEST_LINE
    with path.open("rb") as file:
        for number in count(1):
            line = file.readline(longest + 1)
            if not line:
                return
            if len(line) > longest:
                raise UserError(
                    f"{path}:{number} is longer than {longest >> 20} MB; split it or drop it"
                )
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise UserError(
                    f"{path}:{number} is not UTF-8; save the file in that encoding"
                ) from None
            if "\0" in text:
                raise UserError(
                    f"{path}:{number} holds a NUL byte, as UTF-16 and no text has; save as UTF-8"
                )
            yield number, text


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".csv": _read_csv,
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
