"""Rows of data that is too large to hold: read from their files whenever they are asked for."""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mlx_yoda.data.rows import Row
from mlx_yoda.errors import UserError

LARGE = 32 << 20
"""Bytes from which on data is streamed, and its tokens are kept on disk, instead of in memory."""


class Extent(NamedTuple):
    """How many rows there are, and their columns."""

    rows: int
    columns: tuple[str, ...]


class Streamed(Collection[Row]):
    """Rows that every iteration reads anew; only their number and columns are kept.

    Attributes:
        files: where they are from.
    """

    def __init__(
        self, read: Callable[[], Iterator[Row]], files: tuple[Path, ...], extent: Extent | None
    ) -> None:
        """Remember how to read.

        Args:
            read: begins to read all rows.
            files: where they are from.
            extent: number and columns; None if only reading all of them can tell.
        """
        self._read, self._extent = read, extent
        self.files = files

    def __iter__(self) -> Iterator[Row]:
        return self._read()

    def __len__(self) -> int:
        return self.extent.rows

    def __bool__(self) -> bool:
        return True  # or reading them says otherwise; nothing is read for the question

    def __contains__(self, row: object) -> bool:
        return any(row == other for other in self)

    @cached_property
    def extent(self) -> Extent:
        """Number and columns.

        Raises:
            UserError: there are no rows, or they cannot be read.
        """
        found = self._extent or self._measured()
        if not found.rows:
            raise UserError(f"{self.files[0]} holds no rows")
        return found

    @property
    def choice(self) -> tuple[float, int, bool] | None:
        """Which of the rows of the files these are; None means all."""
        return None

    def _measured(self) -> Extent:
        count, columns = 0, dict[str, None]()
        for row in self:
            count += 1
            columns.update(dict.fromkeys(row.values))
        return Extent(count, tuple(columns))


class Part(Streamed):
    """Those rows of others that are held out, or those that are kept."""

    def __init__(self, whole: Streamed, share: float, seed: int, held_out: bool) -> None:
        """Choose as `held_out` does, once it is known how many rows there are."""
        super().__init__(lambda: self._chosen(), whole.files, None)
        self._whole, self._choice = whole, (share, seed, held_out)

    @property
    def choice(self) -> tuple[float, int, bool]:
        """Share, seed, and whether it is the rows held out."""
        return self._choice

    def _chosen(self) -> Iterator[Row]:
        try:
            for row, taken in zip(self._whole, self._mask, strict=True):
                if taken:
                    yield row
        except ValueError:  # more rows than were counted, or fewer
            raise changed(self.files) from None

    def _measured(self) -> Extent:
        return Extent(int(self._mask.sum()), self._whole.extent.columns)

    @cached_property
    def _mask(self) -> np.ndarray:
        share, seed, out = self._choice
        return held_out(len(self._whole), share, seed) == out


def changed(files: Sequence[Path]) -> UserError:
    """What to say if files are not any more what they were when they were first read."""
    names = ", ".join(map(str, files))
    return UserError(f"{names} changed while being read; start again once nothing writes there")


def held_out(rows: int, share: float, seed: int) -> np.ndarray:
    """Choose `round(share * rows)` rows, at least one, by a seeded shuffle.

    Returns:
        `(rows,)` bool.

    Raises:
        UserError: nothing would be left on one side.
    """
    count = max(1, round(share * rows))
    if not 0 < share < 1 or count == rows:
        raise UserError(
            f"data.validation_split of {share} leaves no row to train on or none to hold out of "
            f"{rows}; give a share between 0 and 1"
        )
    chosen = np.zeros(rows, bool)
    chosen[np.random.default_rng(seed).permutation(rows)[:count]] = True
    return chosen


def columns_of(rows: Collection[Row]) -> list[str]:
    """The names of all columns, in the order in which the rows bring them."""
    if isinstance(rows, Streamed):
        return list(rows.extent.columns)
    return list(dict.fromkeys(name for row in rows for name in row.values))
