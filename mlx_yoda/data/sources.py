"""Where rows come from: a file, a folder, the Hub or the built-in demo, and which are held out."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from mlx_yoda.config.schema import DataConfig
from mlx_yoda.data.arrow import is_saved, load_saved
from mlx_yoda.data.formats import READERS, read_rows, rows_key
from mlx_yoda.data.hub import load_hub
from mlx_yoda.data.layout import has_configs, load_layout
from mlx_yoda.data.rows import Row, shown
from mlx_yoda.data.streams import Part, Streamed, held_out
from mlx_yoda.errors import UserError

__all__ = ["Row", "Splits", "load_splits"]

DEMO = Path(__file__).resolve().parent.parent / "demo" / "data"

_NAMES = {  # a split's usual names in folders and on the Hub, best first
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}


@dataclass(frozen=True)
class Splits:
    """The rows of each split, streamed where they are many; validation and test may be empty.

    Attributes:
        train, validation, test: the rows, in the order of their files.
        name: the data set's name for people: what the configuration calls it.
        notes: what the user should know about how it was read.
    """

    train: Collection[Row]
    validation: Collection[Row]
    test: Collection[Row]
    name: str
    notes: tuple[str, ...] = ()


def load_splits(config: DataConfig, seed: int) -> Splits:
    """Read `config.dataset_name`; hold out `validation_split` if it brings no such split.

    The literal name `demo` is the data set in this package. Anything that exists on disk is
    a file (its rows are the training rows), a folder that `datasets` has written by
    `save_to_disk`, a folder of train, valid and test files, or one laid out as on the Hub; what
    does not, and looks like `owner/name`, is a Hub id.

    Args:
        config: which data set, and the share to hold out.
        seed: of the shuffle that chooses the rows held out.

    Raises:
        UserError: nothing there, no training rows, or rows that cannot be read.
    """
    notes: list[str] = []
    splits = _find(config, notes)
    if not splits["train"]:
        raise UserError(f"the training split of {config.dataset_name} holds no rows")
    if not splits["validation"]:
        splits["train"], splits["validation"] = hold_out(
            splits["train"], config.validation_split, seed
        )
    return Splits(**splits, name=config.dataset_name, notes=tuple(notes))


def public_dataset(name: str) -> str | None:
    """What others find a data set by: its Hub id, or `demo`; None for a file or folder here."""
    return name if name == "demo" or _on_disk(name) is None else None


def hold_out(
    rows: Collection[Row], share: float, seed: int
) -> tuple[Collection[Row], Collection[Row]]:
    """Take a share of the rows out by a seeded shuffle; both parts keep the rows' order.

    Returns:
        The rows kept, and `round(share * len(rows))` rows held out, at least one if share > 0.

    Raises:
        UserError: nothing would be left on one side; of streamed rows their parts tell.
    """
    if not share:
        return rows, []
    if isinstance(rows, Streamed):
        return Part(rows, share, seed, held_out=False), Part(rows, share, seed, held_out=True)
    out = held_out(len(rows), share, seed).tolist()
    kept = [row for row, taken in zip(rows, out, strict=True) if not taken]
    return kept, [row for row, taken in zip(rows, out, strict=True) if taken]


def _find(config: DataConfig, notes: list[str]) -> dict[str, Collection[Row]]:
    name = config.dataset_name
    path = DEMO if name == "demo" else _on_disk(name)
    if path is not None:
        if not path.is_dir():
            _refuse_config(config)
            return {"train": _read_file(path, notes), "validation": [], "test": []}
        if is_saved(path):
            _refuse_config(config)
            return _by_use(name, load_saved(path), notes)
        if (files := _split_files(path)) and not has_configs(path):
            _refuse_config(config)
            return {use: _read_file(files[use], notes) if use in files else [] for use in _NAMES}
        return _by_use(name, load_layout(path, config.dataset_config), notes)
    from mlx_yoda.hub_client import is_repo_id  # 0.3 s, and files here need none of it

    if is_repo_id(name) and Path(name).suffix.lower() not in READERS:
        return _by_use(name, load_hub(name, config.dataset_config), notes)
    raise UserError(
        f"data.dataset_name: there is no file or folder '{name}' (a data set on the Hub is "
        "written owner/name)"
    )


def _refuse_config(config: DataConfig) -> None:
    """Refuse a configuration's name where there are none to choose from."""
    if config.dataset_config is not None:
        raise UserError(
            f"data.dataset_config is '{config.dataset_config}', but {config.dataset_name} has no "
            "configurations; leave it out"
        )


def _read_file(path: Path, notes: list[str]) -> Collection[Row]:
    rows = read_rows(path)
    if (key := rows_key(path)) is not None:
        notes.append(f"{path}: the rows are those under {shown(key)}")
    return rows


def _by_use(
    name: str, splits: dict[str, Collection[Row]], notes: list[str]
) -> dict[str, Collection[Row]]:
    """Splits by what they are for, from splits by their own names."""
    found = {split: _named(names, splits) for split, names in _NAMES.items()}
    if found["train"] is None:
        raise UserError(f"{name} has no split called train, only {', '.join(splits)}")
    if unused := sorted(splits.keys() - set(found.values())):
        notes.append(f"{name} has splits that are not used: {', '.join(unused)}")
    return {split: splits[key] if key else [] for split, key in found.items()}


def _on_disk(name: str) -> Path | None:
    try:
        path = Path(name).expanduser()
        return path if name.strip() and path.exists() else None
    except (OSError, RuntimeError):  # a name that no file can have, a user whom nobody knows
        return None


def _split_files(folder: Path) -> dict[str, Path]:
    """The files of a folder that are named as splits, by their use; none without a train file."""
    try:
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() in READERS)
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror or error}") from None
    splits: dict[str, Path] = {}
    for split, names in _NAMES.items():
        stem = _named(names, (path.stem for path in files))
        found = [path for path in files if path.stem == stem]
        if len(found) > 1:
            raise UserError(f"{folder} has both {found[0].name} and {found[1].name}; keep one")
        if found:
            splits[split] = found[0]
    return splits if "train" in splits else {}


def _named(names: Iterable[str], there: Iterable[str]) -> str | None:
    """The first of the names that is there."""
    present = set(there)
    return next((name for name in names if name in present), None)
