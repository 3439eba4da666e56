"""A run of some hundred steps holds as much at its end as before; 5,000 are a benchmark."""

import pytest

from benchmarks.endurance import Held, growth, measure


@pytest.mark.slow
def test_nothing_grows(tmp_path):
    held = measure(tmp_path / "run", 200, every=10)
    assert [one.step for one in held] == list(range(10, 201, 10))
    assert abs(growth(held, "allocated")) < 0.01
    assert growth(held, "resident") < 0.03
    for name in ("files", "threads"):
        assert growth(held, name) == 0


def test_growth_is_noticed():
    held = [Held(step, 100 + step, 5, 7, 3 + step // 20) for step in range(1, 51)]
    assert growth(held, "resident") > 0.2
    assert growth(held, "threads") > 0.3
    assert growth(held, "files") == 0
