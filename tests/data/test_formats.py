import csv
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlx_yoda.config.schema import DataConfig
from mlx_yoda.data import formats, streams
from mlx_yoda.data.columns import conversations
from mlx_yoda.data.formats import READERS, read_rows
from mlx_yoda.errors import UserError

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v, max_size=3)
)
objects = st.lists(st.dictionaries(st.text(), values, max_size=4), min_size=1, max_size=5)

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.slow
@given(rows=objects, escaped=st.booleans(), newline=st.sampled_from(["\n", "\r\n", "\n \n"]))
@example(rows=[{"a": "line\u2028separator\x85\x1c"}], escaped=False, newline="\n")
def test_jsonl_reads_what_json_wrote(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, Any]],
    escaped: bool,
    newline: str,
) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.jsonl"
    text = newline.join(json.dumps(row, ensure_ascii=escaped) for row in rows)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    found = read_rows(path)
    assert [row.values for row in found] == rows
    step = newline.count("\n")
    assert [row.place for row in found] == [f"{path}:{1 + i * step}" for i in range(len(rows))]


@given(content=st.binary(max_size=60) | st.text(alphabet='{}[]":,a1\n\r ', max_size=30))
@example(content="[" * 100_000)
@example(content="1" * 5_000)
@example(content='{"a": "\\ud800"}')
def test_junk_gives_rows_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: str | bytes
) -> None:
    for suffix in READERS:
        path = write(tmp_path_factory.getbasetemp() / f"junk{suffix}", content)
        try:
            rows = read_rows(path)
        except UserError as error:
            assert str(error).startswith(str(path))
        else:
            assert rows


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_csv_keeps_quoted_newlines_and_says_where_a_row_starts(
    tmp_path: Path, newline: str
) -> None:
    lines = ["\ufeffprompt,completion", '"two', 'lines, ""quoted""",yes', "", "last,no", ""]
    rows = read_rows(write(tmp_path / "a.csv", newline.join(lines)))
    assert [dict(row.values) for row in rows] == [
        {"prompt": f'two{newline}lines, "quoted"', "completion": "yes"},
        {"prompt": "last", "completion": "no"},
    ]
    assert [row.place for row in rows] == [f"{tmp_path}/a.csv:2", f"{tmp_path}/a.csv:5"]


def test_a_csv_cell_may_be_long(tmp_path: Path) -> None:
    """Python's parser takes 131,072 characters, or what anybody in the process has told it."""
    before, long = csv.field_size_limit(), 'é, "\n' * 50_000
    quoted = long.replace('"', '""')
    (row,) = read_rows(write(tmp_path / "a.csv", f'text\n"{quoted}"\n'))
    assert row.values == {"text": long}
    assert csv.field_size_limit() == before


def test_the_long_cell_that_was_refused(shared: Path) -> None:
    folder = shared / "cases"
    tables = [read_rows(folder / f"csv_long_cell{suffix}") for suffix in (".csv", ".jsonl")]
    first, second = ([dict(row.values) for row in table] for table in tables)
    assert first == second


def test_json_is_a_list_of_objects_or_an_object_a_line(tmp_path: Path) -> None:
    listed = read_rows(write(tmp_path / "list.json", '\n[{"a": 1},\n {"a": 2}]'))
    lines = read_rows(write(tmp_path / "lines.json", '{"a": 1}\n{"a": 2}\n'))
    assert [r.values for r in listed] == [r.values for r in lines] == [{"a": 1}, {"a": 2}]
    assert listed[1].place == f"{tmp_path}/list.json, row 2"
    assert lines[1].place == f"{tmp_path}/lines.json:2"


CHAT = [{"role": "user", "content": "hé"}, {"role": "assistant", "content": "ho"}]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    ("value", "rows"),
    [
        ({"data": [{"a": 1}, {"a": 2}]}, [{"a": 1}, {"a": 2}]),
        ({"version": "1", "names": ["x"], "rows": [{"a": 1}]}, [{"a": 1}]),
        ({"prompt": "a", "completion": "b"}, [{"prompt": "a", "completion": "b"}]),
        ({"messages": CHAT}, [{"messages": CHAT}]),
        ({"messages": CHAT, "tools": [{}]}, [{"messages": CHAT, "tools": [{}]}]),
        (
            {"prompt": CHAT[:1], "completion": CHAT[1:]},
            [{"prompt": CHAT[:1], "completion": CHAT[1:]}],
        ),
        ([{"data": [{"a": 1}]}], [{"data": [{"a": 1}]}]),
    ],
)
def test_a_json_object_has_rows_under_a_key_or_is_one(
    tmp_path: Path, value: Any, rows: list[dict[str, Any]], indent: int | None
) -> None:
    path = write(tmp_path / "a.json", json.dumps(value, indent=indent) + "\n")
    assert [row.values for row in read_rows(path)] == rows


def test_rows_of_several_files_are_one_collection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write(tmp_path / "a.csv", "text\na\n"), write(tmp_path / "b.jsonl", '{"text": "b"}')
    listed = read_rows(*paths)
    assert [row.values for row in listed] == [{"text": "a"}, {"text": "b"}]
    monkeypatch.setattr(streams, "LARGE", 15)  # more than each of them, less than both
    streamed = read_rows(*paths)
    assert isinstance(streamed, streams.Streamed)
    assert list(streamed) == listed
    assert streamed.files == paths


def test_a_json_value_too_large_to_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "_LARGEST_JSON", 100)
    rows = json.dumps([{"text": "x" * 60}] * 2, indent=1)
    with pytest.raises(UserError, match=r"a\.json is larger than .* write one object a line"):
        read_rows(write(tmp_path / "a.json", rows))
    lines = read_rows(write(tmp_path / "a.json", '{"text": "x"}\n' * 99))
    assert len(lines) == 99


def test_parquet_with_messages(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "hé"}, {"role": "assistant", "content": "ho"}]
    table = pyarrow.table({"messages": [messages, messages[:1]]})
    folder = tmp_path / "split=train"  # which pyarrow would read as a partition
    folder.mkdir()
    pyarrow.parquet.write_table(table, folder / "a.parquet")
    rows = read_rows(folder / "a.parquet")
    assert [dict(row.values) for row in rows] == [
        {"messages": messages},
        {"messages": messages[:1]},
    ]
    assert rows[1].place == f"{folder}/a.parquet, row 2"


UNREADABLE = {
    "dates": pyarrow.array([0, 2**31 - 1], pyarrow.date32()),
    "nested dates": pyarrow.array([[], [2**31 - 1]], pyarrow.list_(pyarrow.date32())),
    "times": pyarrow.array([0, 2**62], pyarrow.timestamp("us")),
    "zones": pyarrow.array([None, 0], pyarrow.timestamp("us", "No/Where")),
    "durations": pyarrow.array([0, 2**62], pyarrow.duration("s")),
    "texts": pyarrow.array([b"", b"\xff"], pyarrow.binary()).view(pyarrow.string()),
    "doubled": pyarrow.StructArray.from_arrays([pyarrow.array([0, 1])] * 2, ["a", "a"]),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_parquet_values_that_python_cannot_hold_matter_only_where_used(
    tmp_path: Path, name: str
) -> None:
    table = pyarrow.table({"text": ["hé", "ho"], name: UNREADABLE[name]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    rows = read_rows(tmp_path / "a.parquet")
    assert [c.text for c in conversations(rows, DataConfig())] == ["hé", "ho"]
    with pytest.raises(UserError) as error:
        conversations(rows[1:], DataConfig(text_column=name))
    message = str(error.value)
    assert message.startswith(f"{tmp_path}/a.parquet, row 2: {name} must be text, not a ")
    assert "that cannot be read (" in message


def test_a_parquet_column_that_is_there_twice(tmp_path: Path) -> None:
    table = pyarrow.table([pyarrow.array(["a"])] * 2, ["text", "text"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet: the column 'text' is there more than once"):
        read_rows(tmp_path / "a.parquet")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"a": 1}\n\n{"a": 2\n', "a.jsonl:3 is broken JSON (Expecting ',' delimiter"),
        ("a.json", '[{"a": 1},\n{"a" 2}]', "a.json:2 is broken JSON (Expecting ':' delimiter"),
        ("a.json", '{\n"a": 1', "a.json:2 is broken JSON"),
        (
            "a.json",
            '{"a": [{"b": 1}], "c": [{}]}',
            "a.json has lists of objects under several keys (",
        ),
        ("a.json", '{"a": [3]}\n[2]', "a.json:2: a row must be a JSON object, not a list"),
        ("a.jsonl", '{"a": 1}\n[2]', "a.jsonl:2: a row must be a JSON object, not a list"),
        ("a.jsonl", "null", "a.jsonl:1: a row must be a JSON object, not null"),
        ("a.json", "[3]", "a.json, row 1: a row must be a JSON object, not a number"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xff"}', "a.jsonl:2 is not UTF-8"),
        ("a.csv", b"a\nb\n\xe9\n", "a.csv:3 is not UTF-8"),
        ("a.csv", "a,b\n1,2\n1,2,3\n", "a.csv:3 has 3 cells, but the first line names 2 columns"),
        ("a.csv", 'a,b\n1,2\n"1,2\n', "a.csv:3 is broken CSV (unexpected end of data)"),
        ("a.csv", "a,b,a\n1,2,3\n", "a.csv:1: the column 'a' is there more than once"),
        ("a.csv", "a,b\n", "a.csv holds no rows"),
        ("a.csv", "", "a.csv holds no rows"),
        ("a.json", "", "a.json holds no rows"),
        ("a.json", "[]", "a.json holds no rows"),
        ("a.jsonl", "\n \n", "a.jsonl holds no rows"),
        ("a.parquet", "", "a.parquet is broken Parquet"),
        ("a.parquet", "PAR1junkPAR1", "a.parquet is broken Parquet"),
        *(
            (f"a{suffix}", POINTER, f"a{suffix} is a git-lfs pointer, not the data: run `git lfs")
            for suffix in READERS
        ),
        ("a.xlsx", "junk", "data files end in .csv, .json, .jsonl, .parquet, not in '.xlsx'"),
        ("a", "junk", "data files end in .csv, .json, .jsonl, .parquet, not in ''"),
    ],
)
def test_what_is_broken_is_named(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(UserError) as error:
        read_rows(write(tmp_path / name, content))
    assert str(error.value).startswith(str(tmp_path))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.csv cannot be read: No such file"):
        read_rows(tmp_path / "gone.csv")
