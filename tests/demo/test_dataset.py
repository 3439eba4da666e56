"""The packaged rows: what the script writes, with nothing held out that was trained on."""

import json

from mlx_yoda.demo import DATA
from mlx_yoda.demo.dataset import TRAIN_ROWS, VALID_ROWS, save


def test_package_holds_what_the_script_writes(tmp_path):
    save(tmp_path / "data")
    written = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    assert written == {path.name: path.read_bytes() for path in DATA.iterdir()}
    assert set(written) == {"train.jsonl", "valid.jsonl"}


def test_held_out_rows_are_unseen():
    train, valid = _rows("train"), _rows("valid")
    assert (len(train), len(valid)) == (TRAIN_ROWS, VALID_ROWS)
    for column in ("sentence", "translation"):
        assert not {row[column] for row in train} & {row[column] for row in valid}


def test_held_out_words_are_known():
    """A word that no training row has could not be learned from them."""
    trained = {word for row in _rows("train") for word in row["translation"].lower().split()}
    assert {word for row in _rows("valid") for word in row["translation"].lower().split()} < trained


def _rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text().splitlines()]
