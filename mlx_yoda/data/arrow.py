"""Arrow files through the `datasets` library: folders of `save_to_disk`, and what the Hub gives."""

from collections.abc import Collection, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from mlx_yoda.data import streams
from mlx_yoda.data.rows import Row, unpacked
from mlx_yoda.data.streams import Extent, Streamed
from mlx_yoda.errors import UserError, first_line
from mlx_yoda.pytorch import show_pytorch

_BATCH = 1000  # rows that are unpacked at a time
_MARKS = ("dataset_dict.json", "state.json")  # of a DatasetDict's folder, and of a Dataset's


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` of a `Dataset` or `DatasetDict` has written a folder."""
    return any((folder / mark).is_file() for mark in _MARKS)


def load_saved(folder: Path) -> dict[str, Collection[Row]]:
    """The splits of such a folder; a `Dataset` is the split `train`.

    Raises:
        UserError: it cannot be loaded.
    """
    show_pytorch()  # datasets imports it where it is in `sys.modules`, hidden or not
    import datasets  # 1.5 s, and most data needs none of it

    try:
        found = datasets.load_from_disk(str(folder))
    except IndexError:  # of the library, which finds no files to put together
        empty = f"{folder} has no rows, or a split that has none: save it without"
        raise UserError(empty) from None
    except Exception as error:  # pyarrow's and the library's own, of a dozen kinds
        raise UserError(f"the data set in {folder} is broken: {first_line(error)}") from error
    if isinstance(found, datasets.Dataset):
        return {"train": rows_of(found, str(folder))}
    return {split: rows_of(part, f"{folder} {split}") for split, part in found.items()}


def rows_of(dataset: Any, name: str) -> Collection[Row]:
    """The rows of a `datasets.Dataset`: a list, or streamed from its files where they are large.

    Args:
        dataset: the data set.
        name: what comes before the number of a row in messages.
    """

    def read() -> Iterator[Row]:
        number = 0
        try:
            tables = dataset.with_format("arrow").iter(_BATCH)
            rows = chain.from_iterable(map(unpacked, tables))
            for number, values in enumerate(rows, start=1):
                yield Row(values, f"{name}, row {number}")
        except (OSError, ValueError) as error:  # pyarrow's are of these
            after = f"after row {number}: {first_line(error)}"
            raise UserError(f"the data set {name} is broken {after}") from None

    files = tuple(Path(file["filename"]) for file in dataset.cache_files)
    if not files or dataset.data.nbytes <= streams.LARGE:
        return list(read())
    return Streamed(read, files, Extent(len(dataset), tuple(dataset.column_names)))
