"""Folders laid out as on the Hub are read as `datasets.load_dataset` reads them."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlx_yoda.config.schema import DataConfig
from mlx_yoda.data import streams
from mlx_yoda.data.sources import Splits, load_splits
from mlx_yoda.data.streams import Streamed
from mlx_yoda.errors import UserError


def lines(path: Path, *texts: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def table(path: Path, *texts: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": list(texts)}), path)


def shards(folder: Path) -> None:
    table(folder / "data" / "train-00001-of-00002.parquet", "c")
    table(folder / "data" / "train-00000-of-00002.parquet", "a", "b")
    table(folder / "data" / "validation-00000-of-00001.parquet", "d")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Data\n")
    (folder / ".gitattributes").write_text("*.parquet filter=lfs\n")


def at_the_top(folder: Path) -> None:
    lines(folder / "train-00000-of-00002.jsonl", "a")
    lines(folder / "train-00001-of-00002.jsonl", "b")
    lines(folder / "test-00000-of-00001.jsonl", "c")


def a_folder_a_split(folder: Path) -> None:
    lines(folder / "train" / "one.jsonl", "a")
    lines(folder / "train" / "two.jsonl", "b")
    lines(folder / "dev" / "one.jsonl", "c")


def configs(folder: Path) -> None:
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n"
        "    path: [second.jsonl, first.jsonl]\n  - split: test\n    path: 'more/*.jsonl'\n---\n"
    )
    lines(folder / "first.jsonl", "a")
    lines(folder / "second.jsonl", "b")
    lines(folder / "train.jsonl", "not this one")
    lines(folder / "more" / "x.jsonl", "c")


def separator(folder: Path) -> None:
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files: train.csv\n  sep: ';'\n---\n"
    )
    (folder / "train.csv").write_text("id;text\n1;a, b\n2;c\n")


def compressed(folder: Path) -> None:
    lines(folder / "train.jsonl.gz", "a", "b")


def unnamed(folder: Path) -> None:
    lines(folder / "rows.jsonl", "a", "b")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Our own cache, and one of `datasets` that nobody may write to."""
    (tmp_path / "shared").write_text("no folder")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "shared")
    monkeypatch.setenv("MLX_YODA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def load(folder: Path, **settings: Any) -> Splits:
    settings = {"dataset_name": str(folder), "validation_split": 0.0} | settings
    return load_splits(DataConfig(**settings), 0)


def texts(rows: Any) -> list[str]:
    return [row.values["text"] for row in rows]


LAYOUTS = (shards, at_the_top, a_folder_a_split, configs, separator, compressed, unnamed)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("build", LAYOUTS)
def test_the_rows_are_those_of_load_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: Callable[[Path], None], large: bool
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    build(folder)
    if large:
        monkeypatch.setattr(streams, "LARGE", 0)
    wanted = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "peer"))
    found = load(folder)
    assert isinstance(found.train, Streamed) == large
    for split in ("train", "validation", "test"):
        rows = getattr(found, split)
        assert texts(rows) == (wanted[split]["text"][:] if split in wanted else [])
        assert len(rows) == len(texts(rows))


def test_a_row_is_named_by_its_file(tmp_path: Path) -> None:
    at_the_top(tmp_path / "folder")
    places = [row.place for row in load(tmp_path / "folder").train]
    assert places == [f"{tmp_path}/folder/train-0000{i}-of-00002.jsonl:1" for i in (0, 1)]


def test_one_of_several_configurations(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: one\n  data_files: one.jsonl\n"
        "- config_name: two\n  data_files: two.jsonl\n---\n"
    )
    lines(tmp_path / "one.jsonl", "a")
    lines(tmp_path / "two.jsonl", "b")
    assert texts(load(tmp_path, dataset_config="two").train) == ["b"]
    with pytest.raises(UserError, match=r"Please pick one among the available configs.*one.*two"):
        load(tmp_path)


def test_splits_without_a_use_are_named(tmp_path: Path) -> None:
    shards(tmp_path / "folder")
    text = (
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: train, path: a.jsonl}\n"
    )
    (tmp_path / "folder" / "README.md").write_text(text + "  - {split: b, path: b.jsonl}\n---\n")
    lines(tmp_path / "folder" / "a.jsonl", "a")
    lines(tmp_path / "folder" / "b.jsonl", "b")
    assert load(tmp_path / "folder").notes == (
        f"{tmp_path}/folder has splits that are not used: b",
    )


@pytest.mark.parametrize("path", ["../secret.jsonl", "{}/secret.jsonl"])
def test_files_elsewhere_are_not_read(tmp_path: Path, path: str) -> None:
    lines(tmp_path / "secret.jsonl", "secret")
    folder = tmp_path / "folder"
    folder.mkdir()
    path = path.format(tmp_path)
    (folder / "README.md").write_text(
        f"---\nconfigs:\n- config_name: default\n  data_files: {path}\n---\n"
    )
    with pytest.raises(UserError, match=r"README\.md names .*secret\.jsonl, which is not in this"):
        load(folder)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has no train file, and `datasets` cannot read it"),
        ({"notes.xlsx": "x"}, "has no train file, and `datasets` cannot read it"),
        ({"README.md": "---\nconfigs: 3\n---\n"}, "has no train file, and `datasets` cannot"),
        ({"data/test-0-of-1.jsonl": '{"text": "x"}'}, "has no split called train, only test"),
        ({"cat.png": "x", "dog.png": "y"}, "holds data of the kind 'imagefolder', not text"),
        ({"a.jsonl.gz": "junk"}, "cannot read it: "),
        ({"a.jsonl": "{"}, "a.jsonl:1 is broken JSON"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, files: dict[str, str], message: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    with pytest.raises(UserError) as error:
        load(folder)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
