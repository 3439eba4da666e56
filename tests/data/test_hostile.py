"""Data sets that are broken or made to hurt: each is one short sentence, soon and in bounds."""

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlx_yoda.config.schema import DataConfig
from mlx_yoda.data import formats
from mlx_yoda.data.chat import encode
from mlx_yoda.data.columns import conversations
from mlx_yoda.data.formats import read_rows
from mlx_yoda.data.rows import Row
from mlx_yoda.errors import UserError
from tests.machine import within


def refused(path: Path) -> str:
    with within(20), pytest.raises(UserError) as error:
        conversations(read_rows(path), DataConfig())
    message = str(error.value)
    assert message.startswith(str(path))
    assert message.isprintable()
    assert len(message) < len(str(path)) + 1500
    return message.removeprefix(str(path))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text": "\xff"}\n', ":2 is not UTF-8; save"),
        ("a.jsonl", b'{"text": "\xed\xa0\x80"}\n', ":1 is not UTF-8"),
        ("a.csv", b"text\nx\n\xc3(\n", ":3 is not UTF-8"),
        ("a.jsonl", b'{"text": "x"}\n{"text": "a\0b"}\n', ":2 holds a NUL byte"),
        ("a.csv", b"text\na\0b\n", ":2 holds a NUL byte"),
        ("a.csv", "text\nhello\n".encode("utf-16-le"), ":1 holds a NUL byte"),
        ("a.jsonl", b'{"text": "a\\u0000b"}\n', ":1: text holds a NUL character"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', ":1: text holds half of a surrogate pair"),
        ("a.jsonl", b"[" * 10**6, ":1 is broken JSON"),
        ("a.jsonl", b'{"text": ' * 10**5, ":1 is broken JSON"),
        ("a.jsonl", b'{"text": ' + b"9" * 10**5 + b"}", ":1 is broken JSON"),
        ("a.jsonl", b'{"text": [[[[[[]]]]]]}', ":1: text must be text, not a list"),
        ("a.jsonl", b'{"text": {"text": {}}}', ":1: text must be text, not an object"),
        ("a.jsonl", b'{"text": NaN}', ":1: text must be text, not a number"),
        ("a.jsonl", b'{"messages": [[{"role": "user"}]]}', ":1: messages[0] must be an object"),
        ("a.jsonl", b"[" + b"[]," * 10**5 + b"[]]", ":1: a row must be a JSON object, not a list"),
        ("a.json", b"[" + b"[]," * 10**5 + b"[]]", ", row 1: a row must be a JSON object"),
        ("a.csv", b'"' + b"x" * 10**6, ":1 is broken CSV"),
        ("a.csv", b"a" * 10**6 + b"," + b"a" * 10**6 + b"\n", ":1: the column 'aaaaaaaa"),
        ("a.csv", b"text,text,\x1b[2J\nx,x,x\n", ":1: the column 'text' is there more than once"),
        ("a.parquet", b"PAR1" + bytes(100) + b"PAR1", " is broken Parquet"),
        ("a.parquet", b"PAR1\xff\xff\xff\x7fPAR1", " is broken Parquet"),
    ],
)
def test_a_broken_file_is_one_sentence_with_its_line(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert refused(tmp_path / name).startswith(said)


@pytest.mark.slow
def test_a_line_of_100_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"prompt": "x" * 100_000_000, "completion": "y"}) + "\n")
    assert (
        refused(path) == ":1 has 100,000,001 characters, more than 4,000,000; split it or drop it"
    )


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_line_without_end_is_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(formats, "_LONGEST_LINE", 1 << 20)
    (tmp_path / name).write_bytes(b"text\n" * (name == "a.csv") + b'"' + b"x" * (40 << 20))
    tracemalloc.start()
    try:
        said = refused(tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()
    assert said == f":{1 + (name == 'a.csv')} is longer than 1 MB; split it or drop it"


def test_a_cell_without_end_is_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "_LONGEST_LINE", 1000)
    (tmp_path / "a.csv").write_text('text\n"' + "x\n" * 2000)
    assert refused(tmp_path / "a.csv").startswith(":2 is broken CSV (field larger than")


def test_a_csv_file_of_200_000_columns_is_read_soon(tmp_path: Path) -> None:
    path = tmp_path / "wide.csv"
    names = ",".join(f"c{i}" for i in range(200_000))
    path.write_text(f"{names}\n{names}\n")
    assert "and 199,980 more" in refused(path)
    path.write_text(f"{names},c7,c5\n")
    assert refused(path) == ":1: the column 'c5' is there more than once"


def test_names_and_roles_of_any_length_are_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({f"\x1b{i}" + "k" * 9999: 1 for i in range(1000)}))
    assert "and 980 more" in refused(path)
    path.write_text(json.dumps({"messages": [{"role": "\x1b" * 10**6, "content": "x"}]}))
    assert ":1: messages[0] has the role '\\x1b\\x1b" in refused(path)


@pytest.mark.slow
def test_a_chat_of_a_million_turns_is_refused_and_a_long_one_is_read(
    tmp_path: Path, tokenizer: Any
) -> None:
    turns = [{"role": r, "content": "x"} for r in ("user", "assistant")]
    path = tmp_path / "turns.jsonl"
    path.write_text(json.dumps({"messages": turns * 500_000}))
    said = refused(path)
    assert said == ":1: messages has 1,000,000 messages, more than 1,000; split the row or drop it"
    rows = conversations([Row({"messages": turns * 100}, "x:1")], DataConfig())
    with within(60):
        (example,) = encode(rows, tokenizer, train_on="completions", max_length=None).examples
    assert example.supervised.sum() == 2 * 100 + 1


@pytest.mark.slow
def test_a_parquet_bomb_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "_LARGEST", 64 << 20)
    path = tmp_path / "bomb.parquet"
    indices = pa.array(np.zeros(1_000_000, np.int32))
    texts = pa.DictionaryArray.from_arrays(indices, ["x" * 10**6])
    pq.write_table(pa.table({"text": texts}), path)
    assert path.stat().st_size < 1 << 20  # and a terabyte once unpacked
    assert refused(path) == " unpacks to more than 0 GB; split it"
    pq.write_table(pa.table({"text": pa.nulls(50_000_000)}), path)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(UserError, match=r"bomb\.parquet unpacks to more than 0 GB; split it"):
        list(read_rows(path))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert refused(tmp_path / "pipe.jsonl").startswith(" is no file")
