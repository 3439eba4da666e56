"""The trend of the loss, and how long it will take."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_yoda.report.events import Evaluated, Working
from mlx_yoda.report.progress import Progress, sparkline, trend


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""),
        ([1.0], "▁"),
        ([2.0, 2.0], "▁▁"),
        ([7, 6, 5, 4, 3, 2, 1, 0], "█▇▆▅▄▃▂▁"),
        ([8.0, math.nan, 1.0], "█ ▁"),
        ([math.inf, math.nan], "  "),
        ([4, 4, 2, 2, 0, 0], "██▅▅▁▁"),
    ],
)
def test_sparklines(values, line):
    assert sparkline(values, 8) == line


@given(st.lists(st.floats(), max_size=300), st.integers(1, 40))
def test_a_sparkline_is_never_too_wide(values, width):
    assert len(sparkline(values, width)) == min(width, len(values))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1.0], ""),
        ([2.0, 1.0], "↘ falling"),
        ([1.0, 2.0], "↗ rising"),
        ([5.0] * 30, "→ level"),
        ([5 - i / 50 for i in range(100)], "↘ falling"),
        ([1.0, math.nan], ""),
    ],
)
def test_trends(values, words):
    assert trend(values) == words


def test_the_losses_of_a_long_run_are_few_and_keep_their_mean(stepped):
    progress = Progress(lambda: 0.0)
    for step in range(10_000):
        progress(stepped(step))
    assert 500 <= len(progress.losses) < 2000
    assert {*progress.losses} == {1.25}


def test_the_time_left_goes_by_the_pace_of_this_session(stepped):
    now = [0.0]
    progress = Progress(lambda: now[0])
    assert progress.remaining() is None
    progress(stepped(21))  # resumed here
    assert progress.remaining() is None
    now[0] = 8.0
    progress(stepped(25))
    assert progress.remaining() == pytest.approx(30.0)
    now[0] = 8.0 + 3600.0 + 2.0
    progress(replace(stepped(26), asleep=3600.0))
    assert progress.remaining() == pytest.approx(28.0)


def test_what_it_is_busy_with_ends_with_the_next_event(stepped):
    progress = Progress(lambda: 0.0)
    progress(Working("measuring"))
    assert progress.stage == "measuring"
    progress(Evaluated(1, 0.1, 1.0, 2.7, 9))
    assert progress.stage is None
