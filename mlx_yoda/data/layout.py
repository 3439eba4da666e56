"""Folders laid out as data sets on the Hub: shards, folders of splits, a README with configs."""

import os
import re
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from mlx_yoda.data.arrow import rows_of
from mlx_yoda.data.formats import READERS, read_rows
from mlx_yoda.data.rows import Row
from mlx_yoda.errors import UserError
from mlx_yoda.files import cache_folder
from mlx_yoda.pytorch import show_pytorch

_BUILDERS = ("arrow", "csv", "json", "parquet", "text")  # those of `datasets` that give text
_WHERE = {"name", "version", "data_dir", "data_files", "description"}  # says nothing of how to read
_LONGEST = 300  # characters of another library's message


def has_configs(folder: Path) -> bool:
    """Whether the folder's README.md says which files are which split."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return re.search(r"^configs:", text, re.MULTILINE) is not None


def load_layout(folder: Path, config_name: str | None) -> dict[str, Collection[Row]]:
    """The splits that `datasets.load_dataset(folder)` finds, by their names there.

    `datasets` says which files are which split; they are read as single files are. Files that
    only `datasets` reads (text, Arrow, compressed ones), and CSV or JSON with options in
    README.md, go through it and its own cache within ours.

    Args:
        folder: such a folder.
        config_name: which of its configurations, if README.md has several.

    Raises:
        UserError: no such configuration, no data files, files elsewhere, or broken ones.
    """
    show_pytorch()  # datasets imports it where it is in `sys.modules`, hidden or not
    import datasets  # 1.5 s, and most data needs none of it

    try:
        with tempfile.TemporaryDirectory() as scratch:
            builder = datasets.load_dataset_builder(str(folder), config_name, cache_dir=scratch)
        if builder.name not in _BUILDERS:
            raise UserError(f"{folder} holds data of the kind '{builder.name}', not text")
        files = _files(builder.config.data_files or {}, folder)
        if _plain(builder.config, files):
            return {split: read_rows(*paths) for split, paths in files.items()}
        own = str(cache_folder() / "datasets")
        splits = datasets.load_dataset(str(folder), config_name, cache_dir=own)
        return {split: rows_of(part, f"{folder} {split}") for split, part in splits.items()}
    except UserError:
        raise
    except Exception as error:  # the library's own, of a dozen kinds
        reason = " ".join(str(error).split())  # the names to choose from are on its second line
        raise UserError(
            f"{folder} has no train file, and `datasets` cannot read it: {reason[:_LONGEST]} "
            "(data.dataset_config names one of several configurations)"
        ) from error


def _files(data_files: Any, folder: Path) -> dict[str, tuple[Path, ...]]:
    """The files of each split, none of which lies elsewhere, whatever a README.md says."""
    found = {
        str(split): tuple(Path(os.path.normpath(name)) for name in names)
        for split, names in data_files.items()
    }
    for path in (path for paths in found.values() for path in paths):
        if not path.is_relative_to(folder.resolve()):
            raise UserError(f"{folder}/README.md names {path}, which is not in this folder")
    return found


def _plain(config: Any, files: dict[str, tuple[Path, ...]]) -> bool:
    """Whether our own readers read these files, and README.md does not say how to."""
    given, default = vars(config), vars(type(config)())
    suffixes = {path.suffix.lower() for paths in files.values() for path in paths}
    return suffixes <= READERS.keys() and all(
        given[key] == default[key] for key in given.keys() - _WHERE
    )
