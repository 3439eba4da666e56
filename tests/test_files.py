"""Files are whole or absent."""

import errno
import hashlib
import json
import tempfile

import pytest

from mlx_yoda import files


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"a": 1})
    files.write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o400


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_directory_appears_filled_or_not_at_all(tmp_path):
    path = tmp_path / "new"
    with pytest.raises(RuntimeError), files.new_directory(path) as folder:
        (folder / "a").write_text("x")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with files.new_directory(path) as folder:
        (folder / "a").write_text("x")
        assert not path.exists()
    assert (path / "a").read_text() == "x"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileExistsError), files.new_directory(path):
        pass


def test_sha256(tmp_path):
    path = tmp_path / "a"
    files.write_bytes(path, b"abc")
    assert files.sha256(path) == hashlib.sha256(b"abc").hexdigest()


def test_a_new_directory_may_replace_an_old_one(tmp_path):
    path = tmp_path / "new"
    path.mkdir()
    (path / "old").write_text("x")
    with files.new_directory(path, replace=True) as folder:
        (folder / "a").write_text("x")
        assert (path / "old").exists()
    assert [inner.name for inner in path.iterdir()] == ["a"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_is_removed_at_once(tmp_path, monkeypatch):
    """Killed in the middle of it, nothing half removed keeps the name; what is left is swept."""
    path = tmp_path / "checkpoint-2"
    path.mkdir()
    (path / "a").write_text("x")
    with monkeypatch.context() as patch:
        patch.setattr(files.shutil, "rmtree", lambda path: None)
        files.remove_directory(path)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".checkpoint-2.")
    (tmp_path / ".config.yaml.x1.aside").write_text("half")
    (tmp_path / ".mine").write_text("mine")
    files.sweep(tmp_path)
    assert [inner.name for inner in tmp_path.iterdir()] == [".mine"]


def test_an_error_names_what_was_to_be_written_and_not_what_is_aside(tmp_path, monkeypatch):
    def refuse(path, *_, **__):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(tempfile._os, "mkdir", refuse)
    monkeypatch.setattr(tempfile._os, "open", refuse)
    path = tmp_path / "new"
    with pytest.raises(OSError) as of_file:
        files.write_text(path, "x")
    with pytest.raises(OSError) as of_directory, files.new_directory(path):
        pass
    assert of_file.value.filename == of_directory.value.filename == str(path)
