"""MLX's kernels are kept where nobody else can write, or not compiled."""

import os
import subprocess
import sys
import tempfile

import pytest

from mlx_yoda import kernels
from mlx_yoda.kernels import SWITCH, is_compiler_s, keep_kernels_private

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="MLX's CPU kernels of Linux")


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """A temporary directory and a cache of this test's own."""
    for variable in ("TMP", "TEMP", "TEMPDIR", SWITCH):
        monkeypatch.delenv(variable, raising=False)
    for folder in ("tmp", "caches"):
        (tmp_path / folder).mkdir(mode=0o700)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("MLX_YODA_CACHE", str(tmp_path / "caches" / "yoda"))
    monkeypatch.setattr(tempfile, "tempdir", "/set/before")
    yield tmp_path / "tmp"
    os.environ.pop(SWITCH, None)  # what the function itself has set


def private(folder):
    return folder.is_dir() and folder.stat().st_mode & 0o777 == 0o700


def test_in_a_usual_temporary_directory_the_folder_is_made_private(temporary):
    keep_kernels_private()
    assert os.environ["TMPDIR"] == str(temporary)
    assert private(temporary / "mlx")
    assert SWITCH not in os.environ


def test_a_folder_of_this_user_becomes_private(temporary):
    (temporary / "mlx").mkdir(mode=0o755)
    keep_kernels_private()
    assert private(temporary / "mlx")
    assert os.environ["TMPDIR"] == str(temporary)


def spoil_open(temporary, monkeypatch):
    (temporary / "mlx").mkdir()
    (temporary / "mlx").chmod(0o777)


def spoil_link(temporary, monkeypatch):
    (temporary.parent / "elsewhere").mkdir()
    (temporary / "mlx").symlink_to(temporary.parent / "elsewhere")


def spoil_file(temporary, monkeypatch):
    (temporary / "mlx").write_text("")


def spoil_owner(temporary, monkeypatch):
    (temporary / "mlx").mkdir(mode=0o700)
    theirs = (temporary / "mlx").lstat().st_ino
    lstat = kernels.Path.lstat

    def another_s(path):
        found = lstat(path)
        return os.stat_result((*found[:4], 4711, *found[5:])) if found.st_ino == theirs else found

    monkeypatch.setattr(kernels.Path, "lstat", another_s)


def spoil_no_sticky_bit(temporary, monkeypatch):
    temporary.chmod(0o777)


def spoil_absent(temporary, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(temporary / "none"))


def spoil_full(temporary, monkeypatch):
    statvfs = os.statvfs

    def full(path):
        found = statvfs(path)
        return (
            os.statvfs_result((*found[:4], 0, *found[5:])) if path == temporary / "mlx" else found
        )

    monkeypatch.setattr(kernels.os, "statvfs", full)


SPOILT = [
    spoil_open, spoil_link, spoil_file, spoil_owner, spoil_no_sticky_bit, spoil_absent, spoil_full,
]  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILT)
def test_elsewhere_the_kernels_go_to_the_user_s_caches(temporary, monkeypatch, spoil):
    spoil(temporary, monkeypatch)
    keep_kernels_private()
    own = temporary.parent / "caches" / "yoda" / "tmp"
    assert os.environ["TMPDIR"] == str(own)
    assert private(own) and private(own / "mlx")
    assert SWITCH not in os.environ
    assert tempfile.gettempdir() == "/set/before"


@pytest.mark.parametrize("spoil", SPOILT)
def test_without_any_folder_nothing_is_compiled(temporary, monkeypatch, spoil):
    spoil(temporary, monkeypatch)
    before = os.environ["TMPDIR"]
    (temporary.parent / "file").write_text("")
    monkeypatch.setenv("MLX_YODA_CACHE", str(temporary.parent / "file"))
    keep_kernels_private()
    assert os.environ["TMPDIR"] == before
    assert "mlx" in os.environ[SWITCH] or "tmp" in os.environ[SWITCH]


def test_the_user_s_own_switch_is_left_alone(temporary, monkeypatch):
    monkeypatch.setenv(SWITCH, "1")
    keep_kernels_private()
    assert os.environ[SWITCH] == "1"
    assert not (temporary / "mlx").exists()


@pytest.mark.slow
@pytest.mark.parametrize("spoil", [spoil_open, spoil_absent])
def test_mlx_compiles_where_it_is_told_and_does_not_where_it_is_switched_off(
    temporary, monkeypatch, spoil
):
    """MLX itself reads the temporary directory and the switch as this module presumes."""
    program = (
        "from mlx_yoda.kernels import keep_kernels_private; keep_kernels_private()\n"
        "import mlx.core as mx; mx.set_default_device(mx.cpu)\n"
        "print(mx.compile(lambda x: (x * 2 + 1) * x)(mx.ones(3)).tolist())\n"
    )
    spoil(temporary, monkeypatch)
    for switch in ({}, {SWITCH: "because"}):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | switch,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "[3.0, 3.0, 3.0]\n"
        kept = list((temporary.parent / "caches").rglob("*.so"))
        assert len(kept) == bool(not switch)
        for library in kept:
            library.unlink()
    assert not list(temporary.rglob("*.so"))


@pytest.mark.parametrize(
    ("error", "so"),
    [
        (RuntimeError("[Compile::eval_cpu] Failed to compile function F: g++: No space"), True),
        (RuntimeError("filesystem error: cannot create directories: No space left"), True),
        (RuntimeError("[metal::malloc] Unable to allocate"), False),
        (ValueError("[Compile::eval_cpu]"), False),
    ],
)
def test_the_compiler_s_errors_are_told_from_others(error, so):
    assert is_compiler_s(error) == so
