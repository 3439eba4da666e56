"""Numbers as people write them, and text that is safe to show."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_yoda.report.words import count, duration, one_line, size


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0"), (684_032, "684,032"), (12_582_912, "12.58 M"), (3_833_662_464, "3.83 B")],
)
def test_counts(number, words):
    assert count(number) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (4_200_000, "4.2 MB"),
        (7_642_159_104, "7.6 GB"),
    ],
)
def test_sizes(number, words):
    assert size(number) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (245, "4:05 min"),
        (3599.7, "1:00:00 h"),
        (7445, "2:04:05 h"),
    ],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


@given(st.text())
def test_whatever_a_model_says_is_one_printable_line(text):
    line = one_line(text, 40)
    assert len(line) <= 40
    assert line.isprintable()
