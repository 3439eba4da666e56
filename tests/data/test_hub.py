import shutil
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import datasets
import huggingface_hub
import pytest
from httpx2 import ConnectError, ReadError, ReadTimeout, TooManyRedirects
from huggingface_hub import HfApi
from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

from mlx_yoda.data import streams
from mlx_yoda.data.hub import load_hub
from mlx_yoda.data.streams import Streamed
from mlx_yoda.errors import UserError
from tests.machine import within


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of `datasets`."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def answer(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> None:
    """What the Hub says when it is asked for a data set; loading without asking fails."""

    def dataset_info(self: HfApi, repo_id: str, *, timeout: float) -> None:
        if error:
            raise error

    monkeypatch.setattr(HfApi, "dataset_info", dataset_info)
    if error:
        monkeypatch.setattr(datasets, "load_dataset", None)


def load(monkeypatch: pytest.MonkeyPatch, result: Any) -> None:
    """What `load_dataset` gives or raises."""

    def load_dataset(name: str, config_name: str | None) -> Any:
        assert (name, config_name) == ("owner/name", "big")
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)


def test_splits_become_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, None)
    part = datasets.Dataset.from_dict({"sentence": ["a", "b"]})
    load(monkeypatch, datasets.DatasetDict({"train": part, "extra": part.select([0])}))
    splits = load_hub("owner/name", "big")
    assert list(splits) == ["train", "extra"]
    assert [dict(row.values) for row in splits["train"]] == [{"sentence": "a"}, {"sentence": "b"}]
    assert splits["train"][1].place == "owner/name train, row 2"


def test_a_large_data_set_is_streamed_from_its_arrow_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(streams, "LARGE", 0)
    datasets.Dataset.from_dict({"sentence": ["a", "b"]}).save_to_disk(tmp_path / "train")
    answer(monkeypatch, None)
    load(monkeypatch, {"train": datasets.load_from_disk(str(tmp_path / "train"))})
    rows = load_hub("owner/name", "big")["train"]
    assert isinstance(rows, Streamed)
    assert [path.parent for path in rows.files] == [tmp_path / "train"]
    assert [(row.values["sentence"], row.place) for row in rows] == [
        ("a", "owner/name train, row 1"),
        ("b", "owner/name train, row 2"),
    ]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectError("[Errno -2] Name or service not known"), "the Hub cannot be reached"),
        (ReadTimeout("timed out"), "the connection to the Hub failed"),
        (OfflineModeIsEnabled("offline mode is enabled"), "the Hub cannot be reached"),
        (TooManyRedirects("20"), "the Hub's answers redirect in a circle"),
        (ValueError("Expecting value: line 1"), "the Hub's answer makes no sense, as if a proxy"),
    ],
)
def test_no_network_and_no_cache(
    cache: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    answer(monkeypatch, error)
    with pytest.raises(UserError) as raised:
        load_hub("owner/name", None)
    start = f"'owner/name' is neither a file nor a folder here, and {said}"
    assert str(raised.value).startswith(start)


def test_a_download_that_breaks_off_is_said_without_its_signature(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`datasets` raises its own exception from the client's."""
    answer(monkeypatch, None)
    address = "https://cdn.example/file?X-Amz-Signature=0123456789abcdef"
    broken = RuntimeError("An error occurred while generating the dataset")
    broken.__cause__ = ReadError(f"peer closed connection at {address}")
    load(monkeypatch, broken)
    with pytest.raises(UserError, match="the connection to the Hub failed") as raised:
        load_hub("owner/name", "big")
    assert "Signature" not in str(raised.value)
    load(monkeypatch, RuntimeError(f"no rows in {address}"))
    with pytest.raises(UserError, match="no rows in") as raised:
        load_hub("owner/name", "big")
    assert "Signature" not in str(raised.value)


def test_an_endpoint_that_does_not_answer_is_asked_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with within(10, time.monotonic), pytest.raises(UserError, match="the Hub cannot be reached"):
        load_hub("owner/name", None)


def test_no_network_but_cached(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = tmp_path / "train.csv"
    source.write_text("sentence\nhello\n")
    made = datasets.load_dataset("csv", data_files=str(source), cache_dir=str(tmp_path / "made"))
    files = Path(made["train"].cache_files[0]["filename"]).parent
    shutil.copytree(files, cache / "owner___name" / "default" / "0.0.0" / "0123abcd")
    (cache / "owner___name/default/0.0.0/0123abcd/csv-train.arrow").rename(
        cache / "owner___name/default/0.0.0/0123abcd/name-train.arrow"
    )
    answer(monkeypatch, ConnectionError("no network"))
    splits = load_hub("owner/name", None)
    assert [dict(row.values) for row in splits["train"]] == [{"sentence": "hello"}]


def test_a_data_set_that_the_hub_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, RepositoryNotFoundError("404", response=Mock(headers={})))
    with pytest.raises(UserError, match="nor a data set on the Hub that you may read"):
        load_hub("owner/name", None)


def test_a_name_that_the_hub_cannot_have() -> None:
    with pytest.raises(UserError, match=r"'owner/na--me' is neither .* nor a name on the Hub"):
        load_hub("owner/na--me", None)


def test_a_data_set_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, None)
    load(monkeypatch, ValueError("BuilderConfig 'big' not found. Available: ['small']\nmore"))
    with pytest.raises(UserError) as raised:
        load_hub("owner/name", "big")
    assert str(raised.value) == (
        "the Hub's owner/name cannot be loaded: BuilderConfig 'big' not found. Available: ['small']"
    )
