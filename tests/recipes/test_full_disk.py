"""A disk that fills while something is exported or converted: one sentence, and nothing is left."""

import errno
import os
import resource
import shutil
import signal
import tempfile
from functools import partial
from pathlib import Path

import mlx.core as mx
import pytest
import safetensors.numpy

from mlx_yoda.config.schema import ModelConfig
from mlx_yoda.errors import UserError
from mlx_yoda.model.convert import convert
from mlx_yoda.recipes.export import export

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
MLX_FULL = RuntimeError("[write] Unable to write 4096 bytes to file.")
# What a write comes down to, and what each raises where there is no room.
CALLS = (
    (os, "fsync", FULL), (os, "rename", FULL), (os, "replace", FULL), (os, "chmod", FULL),
    (tempfile, "mkstemp", FULL), (tempfile, "mkdtemp", FULL), (shutil, "copyfile", FULL),
    (shutil, "copy", FULL), (mx, "save_safetensors", MLX_FULL),
    (safetensors.numpy, "save", FULL), (Path, "mkdir", FULL), (Path, "open", FULL),
)  # fmt: skip
WAYS = ("peft", "mlx-lm", "merged", "gguf", "convert")


@pytest.fixture
def write(make_adapter, base_folder, tmp_path):
    """Writes to `out/it` in one of these ways, and gives that path."""
    adapter = make_adapter(r=2, target_modules=["o_proj"])

    def run(way):
        destination = tmp_path / "out" / "it"
        if way == "convert":
            convert(base_folder, destination)
        else:
            model = ModelConfig(str(base_folder))
            export(str(adapter), destination, way, model, base_of_adapter=False)
        return destination

    (tmp_path / "out").mkdir()
    return run


def left(write_to):
    return sorted(path.name for path in write_to.iterdir())


class Failing:
    """In a function's place: its `fail_at`-th call that touches `place` raises."""

    def __init__(self, original, error, place, fail_at):
        self.original, self.error, self.place, self.fail_at = original, error, place, fail_at
        self.calls = 0

    def __get__(self, instance, _):
        return self if instance is None else partial(self, instance)  # a method, such as Path.open

    def __call__(self, *args, **kwargs):
        name = self.original.__name__
        reading = name == "open" and "w" not in str((args[1:], kwargs))
        if name in ("fsync", "save") or (str(self.place) in str(args) and not reading):
            self.calls += 1
            if self.calls == self.fail_at:
                raise self.error
        return self.original(*args, **kwargs)


@pytest.mark.parametrize("way", WAYS)
def test_every_call_may_fail(write, tmp_path, monkeypatch, way):
    place, refused = tmp_path / "out", 0
    for module, name, error in CALLS:
        fail_at = 0
        while True:
            fail_at += 1
            with monkeypatch.context() as patched:
                call = Failing(getattr(module, name), error, place, fail_at)
                patched.setattr(module, name, call)
                try:
                    write(way)
                except UserError as refusal:
                    assert "out/it cannot be written: " in str(refusal)
                    refused += 1
            # Renamed already, if only its folder could not be synced.
            remains = left(place)
            assert remains in ([], ["it"])
            for path in place.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            if call.calls < fail_at:
                assert remains == ["it"]
                break
    assert refused >= 5


@pytest.mark.parametrize("way", WAYS)
def test_a_real_limit_on_a_files_size(write, tmp_path, way):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (700, before[1]))
    try:
        with pytest.raises(UserError, match="out/it cannot be written: ") as refusal:
            write(way)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert str(refusal.value).count("\n") == 0
    assert left(tmp_path / "out") == []


@pytest.mark.parametrize("way", WAYS)
def test_what_a_killed_process_left_is_swept(write, tmp_path, way):
    from mlx_yoda import files

    child = os.fork()
    if child == 0:  # leaves its folder behind, as kill -9 does
        files._directory_aside(tmp_path / "out" / "other")
        os._exit(0)
    os.waitpid(child, 0)
    assert len(left(tmp_path / "out")) == 1
    write(way)
    assert left(tmp_path / "out") == ["it"]
