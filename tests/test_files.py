"""Files are whole or absent."""

import errno
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime

import pytest

from mlx_yoda import files


def names(folder):
    return {path.name for path in folder.iterdir()}


def abandoned(name):
    """What a process of this host that is gone has left of a name."""
    return f"{name}.99999999@{files._host()}.x.aside"  # above the highest number of a process


@pytest.fixture
def sleeper():
    """The number of a process that runs."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process.pid
    process.communicate(b"\n")


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
    assert left.name.startswith(f".checkpoint-2.{os.getpid()}@")
    left.rename(left.with_name(abandoned(".checkpoint-2")))
    (tmp_path / ".mine").write_text("mine")
    files.sweep(tmp_path)
    assert [inner.name for inner in tmp_path.iterdir()] == [".mine"]


def test_only_what_an_ended_process_left_is_swept(tmp_path, sleeper):
    (tmp_path / abandoned(".a")).write_text("half")
    (tmp_path / abandoned(".b[1]")).mkdir()
    of_a_live_process = {f".a.{process}@{files._host()}.x.aside" for process in (sleeper, 1)}
    for name in of_a_live_process:
        (tmp_path / name).write_text("half")
    with files.new_directory(tmp_path / "b") as aside:
        files.sweep(tmp_path)
        assert names(tmp_path) == {*of_a_live_process, aside.name}


def test_of_one_name_only_that_is_swept(tmp_path):
    for name in (".a[1]", ".b"):
        (tmp_path / abandoned(name)).write_text("half")
    files.sweep(tmp_path, "a[1]")
    assert names(tmp_path) == {abandoned(".b")}


@pytest.mark.parametrize("writer", ["99999999@01234567.x", "x1"])  # another host; unknown
def test_what_cannot_be_asked_for_is_swept_when_a_week_old(tmp_path, writer):
    day = 24 * 3600
    for age, inner_age in ((6, 6), (8, 8), (8, 6)):
        aside = tmp_path / f".of-{age}-and-{inner_age}.{writer}.aside"
        aside.mkdir()
        (aside / "a").write_text("half")
        for path, days in ((aside / "a", inner_age), (aside, age)):
            touched = datetime.now(UTC).timestamp() - days * day
            os.utime(path, (touched, touched))
    files.sweep(tmp_path)
    assert {name.split(".")[1] for name in names(tmp_path)} == {"of-6-and-6", "of-8-and-6"}


def test_sweeping_what_another_process_sweeps_as_well(tmp_path, monkeypatch):
    """A file that has gone meanwhile is no error, nor is one that may not be removed."""
    (tmp_path / abandoned(".a")).write_text("half")

    def gone(*_, **__):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(files.Path, "unlink", gone)
    files.sweep(tmp_path)


@pytest.mark.parametrize("make", ["write_bytes", "new_file", "new_directory"])
def test_a_new_name_is_synced_with_its_folder(tmp_path, monkeypatch, make):
    """After the rename; without it a power cut can take a file back that was announced."""
    done = []
    rename, replace, fsync = os.rename, os.replace, os.fsync
    monkeypatch.setattr(files.os, "rename", lambda *p: (rename(*p), done.append("renamed")))
    monkeypatch.setattr(files.os, "replace", lambda *p: (replace(*p), done.append("renamed")))
    monkeypatch.setattr(files.os, "fsync", lambda fd: (fsync(fd), done.append(os.fstat(fd).st_ino)))
    if make == "write_bytes":
        files.write_bytes(tmp_path / "a", b"x")
    else:
        with getattr(files, make)(tmp_path / "a") as aside:
            (aside / "x" if make == "new_directory" else aside).write_text("x")
    assert done[-2:] == ["renamed", tmp_path.stat().st_ino]


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
