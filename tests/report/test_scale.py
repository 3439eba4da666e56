"""Axes end in round numbers and write them alike."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_yoda.report.scale import axis, label, round_step

NUMBERS = st.floats(-1e9, 1e9).map(lambda value: value if abs(value) > 1e-9 else 0.0)


@pytest.mark.parametrize(
    ("least", "step"), [(0.3, 0.5), (1, 1), (1.01, 2), (4.9e-5, 5e-5), (6e3, 1e4)]
)
def test_round_steps(least, step):
    assert round_step(least) == pytest.approx(step)


@pytest.mark.parametrize(
    ("value", "step", "text"),
    [
        (0.0, 0.1, "0"),
        (0.30000000000000004, 0.1, "0.3"),
        (12000, 2000, "12,000"),
        (1e-4, 1e-4, "0.0001"),
        (3e-5, 1e-5, "3e-5"),
        (1.5e-4, 1e-5, "1.5e-4"),
        (-2.5, 0.5, "-2.5"),
        (3e9, 1e9, "3e9"),
    ],
)
def test_labels(value, step, text):
    assert label(value, step) == text


@given(st.lists(NUMBERS, max_size=8))
def test_an_axis_holds_its_values_between_few_round_ticks(values):
    scale = axis(values, 100.0, 0.0, parts=4)
    assert scale.low == scale.ticks[0]
    assert scale.high == scale.ticks[-1]
    assert all(-1e-6 <= scale(value) <= 100 + 1e-6 for value in values)
    assert 2 <= len(scale.ticks) <= 7
    assert len(set(scale.labels())) == len(scale.ticks)


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=8))
def test_a_count_is_marked_at_whole_numbers(values):
    scale = axis(map(float, values), 0.0, 400.0, parts=5, counts=True)
    assert all(tick == int(tick) for tick in scale.ticks)
    assert all("." not in text for text in scale.labels())
    if len(set(values)) > 1:
        assert (scale.low, scale.high) == (min(values), max(values))
