"""Rows become tokens: what is kept of them is what they were."""

import json
from pathlib import Path
from typing import Any

import pytest

from mlx_yoda.config.schema import DataConfig
from mlx_yoda.data import streams, tokenised
from mlx_yoda.data.formats import read_rows
from mlx_yoda.data.tokenised import Tokenised, tokenise_rows
from mlx_yoda.errors import UserError

PAIRS = [{"prompt": "hi", "completion": "no" * i} for i in range(1, 20)]


def make(file: Path, tokenizer: Any, told: Any) -> Tokenised:
    return tokenise_rows(
        read_rows(file), DataConfig(), tokenizer, held_out=False, told=told, waiting=lambda: None
    )


def test_a_file_that_grows_while_it_is_tokenised_is_refused(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or its tokens would be kept under the name of what the file was before."""
    monkeypatch.setattr(streams, "LARGE", 0)
    monkeypatch.setenv("MLX_YODA_CACHE", str(tmp_path / "cache"))
    file, before = tmp_path / "rows.jsonl", "\n".join(map(json.dumps, PAIRS))
    file.write_text(before)

    def grow(*_: int) -> None:
        file.write_text(f"{before}\n{json.dumps(PAIRS[0])}")

    with pytest.raises(UserError, match=r"rows\.jsonl changed while being read; start again"):
        make(file, tokenizer, grow)
    assert [path.suffix for path in (tmp_path / "cache" / "tokens").iterdir()] == [".lock"]
    file.write_text(before)
    assert len(make(file, tokenizer, lambda *_: None).segments) == len(PAIRS)


def test_a_whole_store_needs_no_writing(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a cache that somebody shares, where no lock can be held."""
    monkeypatch.setattr(streams, "LARGE", 0)
    monkeypatch.setenv("MLX_YODA_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, PAIRS)))
    made = make(file, tokenizer, lambda *_: None)
    assert made.cached
    lock = made.cached.with_suffix(".lock")
    lock.unlink()
    lock.mkdir()  # which cannot be opened
    monkeypatch.setattr(tokenised, "encode_each", None)
    found = make(file, tokenizer, lambda *_: None)
    assert found.segments.checksums.tolist() == made.segments.checksums.tolist()
