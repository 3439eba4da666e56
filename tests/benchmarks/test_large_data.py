"""The parts of the benchmark on few rows; a million take it half an hour."""

import json

import datasets
import pytest

from benchmarks.large_data import configured, read_epoch, waiting, write_rows
from benchmarks.outside import watch
from mlx_yoda.config.parse import load_config
from mlx_yoda.data import streams


@pytest.mark.parametrize("kind", ["jsonl", "arrow"])
def test_rows_are_the_same_in_both_kinds(tmp_path, kind):
    size = write_rows(tmp_path / "rows", 50, kind)
    assert size > 50 * 200
    if kind == "jsonl":
        rows = [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()]
    else:
        rows = datasets.load_from_disk(str(tmp_path / "rows")).to_list()
    assert len(rows) == 50
    assert rows[0]["sentence"].count(".") + rows[0]["sentence"].count("?") >= 4
    other = tmp_path / "other"
    write_rows(other, 1, "jsonl")
    assert json.loads(other.read_text()) == rows[0]


@pytest.mark.slow
def test_the_loop_waits_little_for_streamed_rows(tmp_path, monkeypatch):
    """On the smallest model that there is; the bound leaves room for a busy machine."""
    monkeypatch.setattr(streams, "LARGE", 0)
    monkeypatch.setenv("MLX_YODA_CACHE", str(tmp_path / "cache"))
    write_rows(tmp_path / "rows.jsonl", 2000, "jsonl")
    settings = configured(tmp_path / "rows.jsonl", tmp_path / "out", 40)
    measured = waiting("the demo", load_config(None, settings))
    assert 0 < measured.share < 0.2
    epoch = read_epoch(load_config(None, configured(tmp_path / "rows.jsonl", tmp_path / "out", -1)))
    assert epoch.rows == 1998
    assert epoch.after < 1.05 * epoch.before
    assert len(list((tmp_path / "cache" / "tokens").glob("*/store.json"))) == 2


@pytest.mark.slow
def test_a_run_is_watched_from_outside(tmp_path):
    write_rows(tmp_path / "rows.jsonl", 100, "jsonl")
    run = watch("small", configured(tmp_path / "rows.jsonl", tmp_path / "out", 40), every=0.02)
    assert 0 < run.start < 120
    assert 0 < run.first < 2**31
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()
