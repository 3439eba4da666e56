"""Tokens on disk: found again, the same as in memory, and never trusted."""

import errno
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_yoda import digests, files
from mlx_yoda.config.schema import DataConfig
from mlx_yoda.data import fingerprint, store, streams, tokenised
from mlx_yoda.data.formats import read_rows
from mlx_yoda.data.packing import PackedRows, grouped
from mlx_yoda.data.sources import hold_out
from mlx_yoda.data.store import Damaged
from mlx_yoda.data.streams import Streamed
from mlx_yoda.data.tokenised import Tokenised, tokenise_rows
from mlx_yoda.errors import UserError

CONFIG = DataConfig(max_length=24)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything is large, and there is an empty cache."""
    monkeypatch.setattr(streams, "LARGE", 0)
    monkeypatch.setenv("MLX_YODA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    words = ["x" * int(n) for n in rng.integers(1, 20, 300)]
    pairs = [{"prompt": "hi", "completion": word} for word in words]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, pairs)))
    return path


def make(file: Path, tokenizer: Any, held_out: bool = False, **settings: Any) -> Tokenised:
    rows = read_rows(file)
    assert isinstance(rows, Streamed)
    config = replace(CONFIG, **settings)
    return tokenise_rows(
        rows, config, tokenizer, held_out=held_out, told=lambda *_: None, waiting=lambda: None
    )


def packed(made: Tokenised, packing: Any) -> PackedRows:
    return grouped(made.segments, packing, CONFIG.max_length)


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> Any:
    """From when it is called on, nothing may be tokenised."""
    return lambda: monkeypatch.setattr(tokenised, "encode_each", None)


@pytest.mark.parametrize("packing", ["none", "best_fit", "concat"])
def test_the_rows_are_those_of_memory(
    file: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, unread: Any, packing: Any
) -> None:
    stored = make(file, tokenizer, packing=packing)
    again = make(file, tokenizer, packing=packing)
    with monkeypatch.context() as patch:
        patch.setattr(streams, "LARGE", 1 << 30)
        rows = read_rows(file)
    assert isinstance(rows, list)
    config = replace(CONFIG, packing=packing)
    options: Any = {"held_out": False, "told": lambda *_: None, "waiting": lambda: None}
    memory = tokenise_rows(rows, config, tokenizer, **options)
    assert memory.cached is None
    wanted = packed(memory, packing)
    for made in (stored, again):
        assert made.segments.tokens.dtype == np.uint16
        assert isinstance(made.segments.tokens, np.memmap)
        assert made.found == memory.found
        found = packed(made, packing)
        assert found.digest() == wanted.digest()
        np.testing.assert_array_equal(found.lengths, wanted.lengths)
        np.testing.assert_array_equal(found.targets, wanted.targets)
        for row, other in zip(found, wanted, strict=True):
            assert row.lengths == other.lengths
            assert (row.tokens.dtype, row.supervised.dtype) == (np.int32, bool)
            np.testing.assert_array_equal(row.tokens, other.tokens)
            np.testing.assert_array_equal(row.supervised, other.supervised)


def test_a_large_vocabulary_takes_wide_numbers(
    file: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_SMALL", 260)
    assert make(file, tokenizer).segments.tokens.dtype == np.int32


def test_held_out_rows_bring_questions(file: Path, tokenizer: Any, unread: Any) -> None:
    made = make(file, tokenizer, held_out=True)
    assert len(made.found.questions) == 300
    assert made.found.questions[0].prompt == "hi"
    unread()
    assert make(file, tokenizer, held_out=True).found == made.found
    assert tokenised._MOST_QUESTIONS == 1000


@pytest.mark.slow
def test_many_rows_are_tokenised_by_several_processes(
    file: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, unread: Any
) -> None:
    wanted = packed(make(file, tokenizer), "none").digest()
    file.write_text(file.read_text() + "\n")
    monkeypatch.setattr(tokenised, "_MANY", 300)
    unread()
    assert packed(make(file, tokenizer), "none").digest() == wanted


def test_nothing_is_tokenised_or_read_twice(
    file: Path, tokenizer: Any, unread: Any, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    made = make(file, tokenizer)
    unread()
    monkeypatch.setattr(digests, "_computed", None)  # the file is known by size and time
    assert make(file, tokenizer).cached == made.cached
    monkeypatch.undo()


def test_a_file_that_was_touched_or_copied_is_known_by_its_content(
    file: Path, tokenizer: Any, unread: Any, tmp_path: Path
) -> None:
    made = make(file, tokenizer)
    unread()
    os.utime(file, (1, 1))
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(file.read_bytes())
    assert make(file, tokenizer).cached == make(copy, tokenizer).cached == made.cached


@pytest.mark.slow
def test_whatever_changes_the_tokens_makes_other_ones(
    file: Path, tokenizer: Any, make_tokenizer: Any
) -> None:
    settings: list[dict[str, Any]] = [
        {}, {"train_on": "all"}, {"max_length": 23}, {"packing": "concat"},
        {"prompt_column": "prompt", "completion_column": "completion"}, {"text_column": "prompt"},
    ]  # fmt: skip
    folders = {make(file, tokenizer, **each).cached for each in settings}
    folders.add(make(file, tokenizer, held_out=True).cached)
    folders.add(make(file, make_tokenizer(rstrip=False)).cached)
    folders.add(make(file, make_tokenizer("{# other #}" + tokenizer.chat_template)).cached)
    assert make(file, tokenizer, packing="best_fit").cached in folders  # groups the same segments
    for share, seed in ((0.1, 0), (0.2, 0), (0.1, 1)):
        for rows in hold_out(read_rows(file), share, seed):
            done = tokenise_rows(
                rows, CONFIG, tokenizer, held_out=False, told=lambda *_: None, waiting=lambda: None
            )
            assert done.found.rows == len(rows)
            folders.add(done.cached)
    before = len(folders)
    file.write_text(file.read_text().replace("hi", "ho", 1))
    folders.add(make(file, tokenizer).cached)
    assert (before, len(folders)) == (6 + 3 + 6, 16)


@pytest.mark.parametrize("program", ["mlx-yoda", "transformers", "tokenizers", "jinja2", "mlx-lm"])
def test_another_version_of_a_program_makes_other_tokens(
    file: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    rows = read_rows(file)
    assert isinstance(rows, Streamed)
    before = fingerprint.fingerprint(rows, CONFIG, tokenizer, False)
    if program == "mlx-yoda":
        monkeypatch.setattr(fingerprint, "__version__", "0.0.1")
    else:
        true = fingerprint.version
        other = lambda name: "0.0.1" if name == program else true(name)  # noqa: E731
        monkeypatch.setattr(fingerprint, "version", other)
    assert fingerprint.fingerprint(rows, CONFIG, tokenizer, False) != before


def test_an_index_that_only_its_digest_tells_from_the_right_one(file: Path, tokenizer: Any) -> None:
    """Two targets change places: every sum and every segment is still right."""
    made = make(file, tokenizer)
    assert made.cached
    index = np.load(made.cached / "index.npy")
    first, other = 0, int(np.flatnonzero(index[1] != index[1][0])[0])
    index[1][[first, other]] = index[1][[other, first]]
    np.save(made.cached / "index.npy", index)
    again = make(file, tokenizer)
    np.testing.assert_array_equal(again.segments.targets, made.segments.targets)


DAMAGE = {
    "tokens.bin": lambda data: data[:-2],
    "supervised.bin": lambda data: data + b"\1",
    "index.npy": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "store.json": lambda data: data[: len(data) // 2],
}


@pytest.mark.parametrize("how", ["cut", "zeroed", "gone"])
@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_store_is_made_again(file: Path, tokenizer: Any, name: str, how: str) -> None:
    whole = make(file, tokenizer)
    assert whole.cached
    path = whole.cached / name
    data = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(DAMAGE[name](data) if how == "cut" else bytes(len(data)))
    again = make(file, tokenizer)
    assert path.read_bytes() == data
    assert packed(again, "none").digest() == packed(whole, "none").digest()
    assert not list(whole.cached.parent.glob(".*"))


def test_a_flipped_bit_is_noticed_when_its_row_is_read(file: Path, tokenizer: Any) -> None:
    made = make(file, tokenizer)
    assert made.cached
    data = bytearray((made.cached / "tokens.bin").read_bytes())
    ends = np.cumsum(made.segments.lengths)
    data[2 * int(ends[100])] ^= 1  # in segment 101, which the start does not look at
    (made.cached / "tokens.bin").write_bytes(data)
    rows = packed(make(file, tokenizer), "none")
    assert len(rows[100].tokens)
    with pytest.raises(UserError, match=r"are damaged \(segment 101 .*with --resume"):
        rows[101]
    assert not made.cached.exists()
    assert packed(make(file, tokenizer), "none")[101].tokens.any()


def test_what_goes_wrong_leaves_nothing(
    file: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    with file.open("a") as open_file:
        open_file.write("\n{")
    with pytest.raises(UserError, match=r"rows\.jsonl:301 is broken JSON"):
        make(file, tokenizer)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.Writer, "add", full)
    file.write_text(file.read_text()[:-2])
    with pytest.raises(UserError, match=r"No space left on device; make room.*MLX_YODA_CACHE"):
        make(file, tokenizer)
    assert [path.suffix for path in (cache / "tokens").iterdir()] == [".lock", ".lock"]


def test_a_cache_that_cannot_be(file: Path, tokenizer: Any, cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(UserError, match=r"cannot be kept in .*MLX_YODA_CACHE"):
        make(file, tokenizer)


def test_no_home_folder(file: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as without HOME and passwd
    monkeypatch.delenv("MLX_YODA_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(UserError, match=r"no home folder for the cache; .*MLX_YODA_CACHE"):
        make(file, tokenizer)
    monkeypatch.setenv("MLX_YODA_CACHE", "~nobody-we-know/cache")
    with pytest.raises(UserError, match=r"no home folder"):
        make(file, tokenizer)


@pytest.mark.parametrize("call", ["mkdir", "open"])
def test_a_cache_of_another_user(
    file: Path, tokenizer: Any, cache: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Root may write anywhere, so the refusal is the system's only in its words."""

    def refuse(path: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    original = Path.open
    if call == "mkdir":
        monkeypatch.setattr(Path, "mkdir", refuse)
    else:
        monkeypatch.setattr(
            Path, "open",
            lambda path, *a, **k: (refuse if cache in path.parents else original)(path, *a, **k),
        )  # fmt: skip
    with pytest.raises(UserError, match=r"kept in .*Permission denied; make room.*MLX_YODA_CACHE"):
        make(file, tokenizer)


@pytest.mark.parametrize("damage", [b"", b"\xff", b"x" * 64])
def test_a_damaged_digest_is_computed_again(
    file: Path, tokenizer: Any, cache: Path, unread: Any, damage: bytes
) -> None:
    made = make(file, tokenizer)
    (memo,) = (cache / "files").iterdir()
    digest = memo.read_bytes()
    memo.write_bytes(damage)
    unread()
    assert make(file, tokenizer).cached == made.cached
    assert memo.read_bytes() == digest


def test_a_file_from_the_future_is_read(file: Path, tokenizer: Any, unread: Any) -> None:
    os.utime(file, (2**33, 2**33))  # in the year 2242
    made = make(file, tokenizer)
    unread()
    assert make(file, tokenizer).cached == made.cached


def test_what_a_killed_process_left_is_swept(file: Path, tokenizer: Any, cache: Path) -> None:
    made = make(file, tokenizer)
    assert made.cached
    (made.cached / "store.json").unlink()
    gone = f"99999999@{files._host()}.x1.aside"
    left = cache / "tokens" / f".{made.cached.name}.{gone}"
    others = cache / "tokens" / f".another.{gone}"
    digest = cache / "files" / f".a.{gone}"
    for folder in (left, others, digest):
        folder.mkdir()
    file.touch()  # so that its digest is written anew
    make(file, tokenizer)
    assert not any(folder.exists() for folder in (left, others, digest))


BUILD_SLOWLY = """
import sys, time
from pathlib import Path

import numpy as np

from mlx_yoda.data import store

def log(word):
    with Path(sys.argv[2]).open("a") as file:
        file.write(word + " ")

def build(writer):
    log("built")
    time.sleep(0.5)
    writer.add(np.arange(5, dtype=np.int32), np.arange(5) > 0)
    return {}

while not Path(sys.argv[3]).exists():
    time.sleep(0.01)
segments, _ = store.cached(Path(sys.argv[1]), 10, build, lambda: log("waits"))
assert segments.read(0)[0].tolist() == [0, 1, 2, 3, 4]
"""


def test_of_two_runs_at_once_one_builds_and_the_other_waits(tmp_path: Path) -> None:
    places = [tmp_path / "cache" / "tokens" / "name", tmp_path / "log", tmp_path / "go"]
    command = [sys.executable, "-c", BUILD_SLOWLY, *map(str, places)]
    runs = [subprocess.Popen(command) for _ in range(2)]
    time.sleep(0.5)
    (tmp_path / "go").touch()
    assert [run.wait() for run in runs] == [0, 0]
    words = (tmp_path / "log").read_text().split()
    assert words.count("built") == 1  # the other has waited, or was late


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("MLX_YODA_CACHE", "~/mine")
    assert files.cache_folder() == Path("/home/me/mine")
    monkeypatch.delenv("MLX_YODA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert files.cache_folder() == Path("/caches/mlx-yoda")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert files.cache_folder() == Path("/home/me/.cache/mlx-yoda")


def test_the_check_itself_says_what_it_found(file: Path, tokenizer: Any) -> None:
    made = make(file, tokenizer)
    assert isinstance(made.segments, store.Stored)
    made.segments.checksums[7] ^= 1
    with pytest.raises(Damaged, match="segment 7"):
        made.segments.checked(7)
