"""Rows that are read anew whenever they are asked for are the same as rows in a list."""

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlx_yoda.config.schema import DataConfig
from mlx_yoda.data import streams
from mlx_yoda.data.columns import conversations, read_conversations
from mlx_yoda.data.formats import read_rows
from mlx_yoda.data.rows import Row
from mlx_yoda.data.sources import hold_out, load_splits
from mlx_yoda.data.streams import Streamed, columns_of
from mlx_yoda.errors import UserError

PAIRS = [{"prompt": f"what {i}, é", "completion": f"that\n{i}"} for i in range(2500)]


def jsonl(path: Path) -> None:
    path.write_text("\n\n".join(json.dumps(pair) for pair in PAIRS), "utf-8")


def csv(path: Path) -> None:
    lines = [f'"{pair["prompt"]}","{pair["completion"]}"\r\n' for pair in PAIRS]
    path.write_text("\ufeffprompt,completion\r\n" + "".join(lines), "utf-8", newline="")


def parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(PAIRS), path)


def saved(path: Path) -> None:
    datasets.Dataset.from_list(PAIRS).save_to_disk(path, num_shards=3)


KINDS: dict[str, Callable[[Path], None]] = {
    "a.jsonl": jsonl, "b.json": jsonl, "c.csv": csv, "d.parquet": parquet, "saved": saved,
}  # fmt: skip


@pytest.fixture
def streaming(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is large."""
    monkeypatch.setattr(streams, "LARGE", 0)


def load(path: Path, share: float = 0.0) -> Collection[Row]:
    return load_splits(DataConfig(dataset_name=str(path), validation_split=share), 3).train


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_streamed_rows_are_the_listed_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    KINDS[name](tmp_path / name)
    listed = load(tmp_path / name)
    assert isinstance(listed, list)
    assert [dict(row.values) for row in listed] == PAIRS
    monkeypatch.setattr(streams, "LARGE", 0)
    streamed = load(tmp_path / name)
    assert isinstance(streamed, Streamed)
    assert list(streamed) == list(streamed) == listed
    assert listed[-1] in streamed
    assert Row({}, "") not in streamed
    assert (len(streamed), columns_of(streamed)) == (len(listed), columns_of(listed))


def test_the_splits_of_a_saved_dataset_dict(tmp_path: Path, streaming: None) -> None:
    part = datasets.Dataset.from_list(PAIRS[:9])
    splits = {"train": part, "valid": part.select([1]), "extra": part}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    found = load_splits(DataConfig(dataset_name=str(tmp_path / "saved")), 0)
    assert [row.place for row in found.train] == [
        f"{tmp_path}/saved train, row {i}" for i in range(1, 10)
    ]
    assert [dict(row.values) for row in found.validation] == PAIRS[1:2]
    assert found.test == []
    datasets.DatasetDict({"extra": part}).save_to_disk(tmp_path / "other")
    with pytest.raises(UserError, match="other has no split called train, only extra"):
        load(tmp_path / "other")


@pytest.mark.parametrize("share", [0.004, 0.3, 0.999])
def test_the_same_rows_are_held_out(tmp_path: Path, streaming: None, share: float) -> None:
    jsonl(tmp_path / "a.jsonl")
    streamed = read_rows(tmp_path / "a.jsonl")
    for seed in (0, 1):
        listed = hold_out(list(streamed), share, seed)
        parts = hold_out(streamed, share, seed)
        assert [list(part) for part in parts] == list(listed)
        assert [len(part) for part in parts] == [len(part) for part in listed]
    assert hold_out(streamed, 0.0, 0) == (streamed, [])
    part, _ = hold_out(streamed, 0.9999, 0)
    with pytest.raises(UserError, match="leaves no row to train on"):
        list(part)


@pytest.mark.parametrize("change", [1, -1])
def test_a_file_with_other_rows_than_were_counted_is_refused(
    tmp_path: Path, streaming: None, change: int
) -> None:
    """Rows are held out by their number, and might be trained on as well."""
    file = tmp_path / "a.jsonl"
    jsonl(file)
    train, held_out = hold_out(read_rows(file), 0.3, 0)
    list(train)
    lines = file.read_text("utf-8").splitlines()
    file.write_text("\n".join([*lines, lines[0]] if change > 0 else lines[:-1]), "utf-8")
    with pytest.raises(UserError, match=r"a\.jsonl changed while being read; start again"):
        list(held_out)


def test_columns_that_only_the_last_row_has_are_known(tmp_path: Path, streaming: None) -> None:
    rows = [{"text": "x"}] * 3 + [{"text": "y", "other": "z"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert columns_of(read_rows(tmp_path / "a.jsonl")) == ["text", "other"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"text": "x"}\n' * 999 + b'{"text": 3}', ":1000: text must be text"),
        ("a.jsonl", b'{"text": "x"}\n' * 999 + b'{"text"', ":1000 is broken JSON (Expecting ':'"),
        ("a.jsonl", b'{"text": "x"}\n' * 999 + b'"\xff"', ":1000 is not UTF-8"),
        ("a.jsonl", b" \n" * 999, " holds no rows"),
        ("a.json", b'{"text": "x"}\n' * 999 + b"[]", ":1000: a row must be a JSON object"),
        ("a.csv", b"text\n" + b"x\n" * 999 + b'"', ":1001 is broken CSV"),
        ("a.csv", b"text\n" + b"x\n" * 999 + b"x,y", ":1001 has 2 cells"),
        ("a.csv", b"text\n" + b"x\n" * 999 + b"\0", ":1001 holds a NUL byte"),
        ("a.parquet", b"PAR1" + bytes(100) + b"PAR1", " is broken Parquet"),
        ("a.csv", b"column\nx", ":2: no prompt with completion, messages or text is recognised"),
    ],
)
def test_what_is_wrong_is_named_from_far_in(
    tmp_path: Path, streaming: None, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        conversations(read_rows(tmp_path / name), DataConfig())
    assert str(error.value).startswith(f"{tmp_path}/{name}{said}")


def test_a_wrong_row_of_an_arrow_folder_is_named(tmp_path: Path, streaming: None) -> None:
    texts = ["x"] * 1500 + [None]
    datasets.Dataset.from_dict({"text": texts}).save_to_disk(tmp_path / "saved")
    with pytest.raises(UserError, match=r"saved, row 1501: text must be text, not null"):
        list(read_conversations(load(tmp_path / "saved"), DataConfig()))


def test_a_date_that_python_cannot_hold_matters_only_where_used(
    tmp_path: Path, streaming: None
) -> None:
    dates: Any = pa.array([0, 2**31 - 1], pa.date32())
    table = datasets.Dataset(pa.table({"text": ["a", "b"], "date": dates}))
    table.save_to_disk(tmp_path / "saved")
    rows = load(tmp_path / "saved")
    assert [c.text for c in read_conversations(rows, DataConfig())] == ["a", "b"]
    with pytest.raises(UserError, match=r"row 1: date must be text"):
        list(read_conversations(rows, DataConfig(text_column="date")))


@pytest.mark.parametrize("cut", [0, 10, 3000])
def test_a_broken_arrow_folder_is_one_sentence(tmp_path: Path, streaming: None, cut: int) -> None:
    saved(tmp_path / "saved")
    file = tmp_path / "saved" / "data-00001-of-00003.arrow"
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"the data set (in )?.*saved is broken") as error:
        list(load(tmp_path / "saved"))
    assert "\n" not in str(error.value)


def test_a_folder_that_only_looks_saved(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(UserError, match=r"the data set in .* is broken"):
        load(tmp_path)


def test_rows_of_hundreds_of_bytes_in_few(tmp_path: Path) -> None:
    """It is the unpacked size of Parquet that decides, not the file's."""
    texts: Any = pa.array(["x" * 99] * 400_000)
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 1 << 20
    found = read_rows(tmp_path / "a.parquet")
    assert isinstance(found, Streamed)
    assert len(found) == 400_000


def test_choosing_is_seeded_and_exact() -> None:
    chosen = streams.held_out(1000, 0.25, 7)
    assert chosen.sum() == 250
    np.testing.assert_array_equal(chosen, streams.held_out(1000, 0.25, 7))
    assert (chosen != streams.held_out(1000, 0.25, 8)).any()
