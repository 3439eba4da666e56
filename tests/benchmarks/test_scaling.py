"""Two processes, started by hand as the launcher does it, take the steps of one."""

import pytest

from benchmarks.scaling import WAYS, material, measure


@pytest.mark.slow
def test_each_way_is_timed(tmp_path):
    base, data = material(tmp_path, 32, 1)
    alone, _, together, _ = WAYS
    found = measure(base, data, tmp_path / "runs", 4, 1, (alone, together))
    assert list(found) == [alone.name, together.name]
    assert all(seconds > 0 for seconds in found.values())
