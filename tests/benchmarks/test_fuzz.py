"""The fuzzing targets: their seeds are read, a fault is seen, and nothing breaks for a while."""

import sys

import pytest

from benchmarks import fuzz
from mlx_yoda.errors import UserError


@pytest.mark.parametrize("target", ["adapter", "config"])
def test_the_seeds_reach_the_reader(target, tmp_path):
    read, seeds = fuzz.reader(target, tmp_path), fuzz.seeds(target)
    assert read(seeds[0])
    with pytest.raises(UserError):
        read(seeds[-1] + b"\xff")


def test_a_fault_is_found_and_shown(tmp_path, monkeypatch, capsys):
    pytest.importorskip("atheris")
    command = (
        "import benchmarks.fuzz as fuzz; "
        "fuzz.reader = lambda target, folder: lambda data: 1 / (len(data) != 3); "
        f"fuzz._fuzz('config', __import__('pathlib').Path({str(tmp_path)!r}), 20)"
    )
    real = fuzz.subprocess.run
    monkeypatch.setattr(
        fuzz.subprocess,
        "run",
        lambda _, **kwargs: real([sys.executable, "-c", command], **kwargs),
    )
    assert fuzz.run("config", 20) == 1
    assert "ZeroDivisionError" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("target", ["adapter", "config"])
def test_a_short_run_counts_its_inputs(target, capsys):
    pytest.importorskip("atheris")
    assert fuzz.run(target, 2) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{target}: ")
    assert "inputs tried in 2 s" in said
