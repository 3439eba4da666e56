"""The benchmark of predicted time."""

import sys

import pytest

from benchmarks.cost import main


@pytest.mark.slow
def test_the_command_writes_its_table(monkeypatch, capsys):
    options = ["--widths", "32", "--rounds", "1", "--seconds", "0.05"]
    monkeypatch.setattr(sys, "argv", ["benchmarks.cost", *options])
    main()
    out = capsys.readouterr().out
    assert out.count("32  16 x  64") == 8  # four keeps, with and without dropout
    assert "off by" in out
