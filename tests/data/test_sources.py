import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_yoda.config.schema import DataConfig
from mlx_yoda.data import sources, streams
from mlx_yoda.data.rows import Row
from mlx_yoda.data.sources import hold_out, load_splits
from mlx_yoda.errors import UserError


def write(path: Path, *texts: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def texts(rows: list[Row]) -> list[str]:
    return [row.values["text"] for row in rows]


def load(name: object, share: float = 0.0, seed: int = 0) -> sources.Splits:
    return load_splits(DataConfig(dataset_name=str(name), validation_split=share), seed)


def test_a_file_is_the_training_split(tmp_path: Path) -> None:
    path = write(tmp_path / "any.jsonl", "a", "b")
    splits = load(path)
    assert (texts(splits.train), splits.validation, splits.test) == (["a", "b"], [], [])
    assert splits.name == str(path)
    assert splits.train[1].place == f"{path}:2"


@pytest.mark.parametrize("large", [False, True])
def test_rows_under_a_key_are_read_and_the_key_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    if large:
        monkeypatch.setattr(streams, "LARGE", 0)
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"version": 2, "data": [{"text": "a"}, {"text": "b"}]}, indent=1))
    splits = load(path)
    assert texts(list(splits.train)) == ["a", "b"]
    assert [row.place for row in splits.train][1] == f"{path}, 'data' row 2"
    assert splits.notes == (f"{path}: the rows are those under 'data'",)
    path.rename(tmp_path / "train.json")
    assert load(tmp_path).notes == (f"{tmp_path}/train.json: the rows are those under 'data'",)


def test_the_nested_rows_that_were_refused(shared: Path) -> None:
    splits = load(shared / "cases" / "nested.json")
    assert len(splits.train) == 8
    assert splits.train[0].values == {"prompt": "Say red.", "completion": "red, I say."}
    assert "'data'" in splits.notes[0]


def test_a_saved_data_set_without_rows_is_named(tmp_path: Path) -> None:
    import datasets

    rows = datasets.Dataset.from_dict({"text": ["a"]})
    datasets.DatasetDict(train=rows, test=rows.select([])).save_to_disk(tmp_path / "saved")
    with pytest.raises(UserError, match="saved has no rows, or a split that has none"):
        load(tmp_path / "saved")


@pytest.mark.parametrize("name", ["valid", "validation", "val", "dev"])
def test_a_folder_of_splits(tmp_path: Path, name: str) -> None:
    write(tmp_path / "train.jsonl", "a", "b")
    write(tmp_path / f"{name}.json", "c")
    (tmp_path / "test.csv").write_text("text\nd\n")
    (tmp_path / "train.txt").write_text("no data")
    splits = load(tmp_path, share=0.5)  # of no effect: there is a validation split
    assert texts(splits.train) == ["a", "b"]
    assert texts(splits.validation) == ["c"]
    assert texts(splits.test) == ["d"]


def test_demo_is_the_data_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "demo" / "train.jsonl", "somebody else's")
    splits = load("demo")
    assert {"sentence", "translation"} <= splits.train[0].values.keys()
    assert splits.validation
    assert splits.name == "demo"


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "x.jsonl", "a")
    assert texts(load("~/x.jsonl").train) == ["a"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.csv", "there is no file or folder 'gone.csv'"),
        ("some/gone.jsonl", "there is no file or folder 'some/gone.jsonl'"),
        ("./gone/folder", "there is no file or folder './gone/folder'"),
        ("squad", "there is no file or folder 'squad' (a data set on the Hub is written"),
        ("", "there is no file or folder ''"),
        ("x" * 5000, "there is no file or folder"),
        ("nul\0", "there is no file or folder"),
        ("~nobody-we-know/a.csv", "there is no file or folder '~nobody-we-know/a.csv'"),
        ("empty", "empty has no split called train, only validation"),
        ("twice", "twice has both train.csv and train.jsonl; keep one"),
        ("hollow", "train.jsonl holds no rows"),
        ("notes.txt", "notes.txt: data files end in .csv"),
    ],
)
def test_what_cannot_be_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "empty" / "validation.jsonl", "a")
    write(tmp_path / "twice" / "train.jsonl", "a")
    write(tmp_path / "twice" / "train.csv", "a")
    write(tmp_path / "hollow" / "train.jsonl")
    write(tmp_path / "notes.txt", "a")
    with pytest.raises(UserError) as error:
        load(name)
    assert message in str(error.value)


def test_a_hub_id_goes_to_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_hub(name: str, config_name: str | None) -> dict[str, list[Row]]:
        asked.append((name, config_name))
        return {"test": [Row({"text": "t"}, "")], "train": [Row({"text": "a"}, "")], "dev": []}

    monkeypatch.setattr(sources, "load_hub", load_hub)
    splits = load_splits(DataConfig(dataset_name="owner/name", dataset_config="big"), 0)
    assert asked == [("owner/name", "big")]
    assert (texts(splits.train), splits.validation, texts(splits.test)) == (["a"], [], ["t"])


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"test": [], "extra": []}, "owner/name has no split called train, only test, extra"),
        ({"train": []}, "the training split of owner/name holds no rows"),
    ],
)
def test_a_hub_data_set_without_training_rows(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, list[Row]], message: str
) -> None:
    monkeypatch.setattr(sources, "load_hub", lambda name, config_name: found)
    with pytest.raises(UserError, match=message):
        load("owner/name")


@given(
    count=st.integers(2, 60),
    share=st.floats(0.01, 0.9),
    seed=st.integers(0, 2**32),
)
def test_hold_out_takes_a_share_and_keeps_the_order(count: int, share: float, seed: int) -> None:
    rows = [Row({"text": str(i)}, str(i)) for i in range(count)]
    if max(1, round(share * count)) == count:
        return
    kept, held = hold_out(rows, share, seed)
    assert len(held) == max(1, round(share * count))
    assert sorted(kept + held, key=rows.index) == rows
    assert kept == [row for row in rows if row in kept]
    assert held == [row for row in rows if row in held]
    assert (kept, held) == hold_out(rows, share, seed)


def test_the_seed_chooses_the_rows_held_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *map(str, range(100)))
    first, second = load(path, 0.1, seed=1), load(path, 0.1, seed=2)
    assert len(first.validation) == len(second.validation) == 10
    assert len(first.train) == 90
    assert texts(first.validation) != texts(second.validation)
    assert texts(first.validation) != [str(i) for i in range(10)]


@pytest.mark.parametrize("share", [1.0, 1.5, -0.1, 0.9])
def test_a_share_that_leaves_nothing(tmp_path: Path, share: float) -> None:
    with pytest.raises(UserError, match=r"data\.validation_split of"):
        load(write(tmp_path / "a.jsonl", "a", "b"), share)


@pytest.mark.parametrize("name", ["a.jsonl", "."])
def test_a_configuration_is_not_ignored_where_there_is_none(tmp_path, name):
    for file in ("a.jsonl", "train.jsonl"):
        (tmp_path / file).write_text('{"text": "a"}\n')
    with pytest.raises(UserError, match=r"data\.dataset_config is 'en', but .* has no config"):
        load_splits(DataConfig(dataset_name=str(tmp_path / name), dataset_config="en"), 0)
