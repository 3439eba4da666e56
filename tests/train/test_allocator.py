"""The allocator's limits; Metal's is asked for, and set nowhere else."""

import mlx.core as mx
import pytest

from mlx_yoda.train.allocator import bound


@pytest.fixture
def limits(monkeypatch):
    """What is set, in place of this process's own limits."""
    found: dict[str, int] = {}
    monkeypatch.setattr(mx, "set_cache_limit", lambda size: found.update(cache=size))
    monkeypatch.setattr(mx, "set_wired_limit", lambda size: found.update(wired=size))
    return found


def test_on_metal_what_is_in_use_stays_resident(limits, monkeypatch):
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    monkeypatch.setattr(mx, "device_info", lambda: {"max_recommended_working_set_size": 11})
    bound(5)
    assert limits == {"cache": 5, "wired": 11}


def test_elsewhere_there_is_no_such_limit(limits, monkeypatch):
    monkeypatch.setattr(mx.metal, "is_available", lambda: False)
    bound(5)
    assert limits == {"cache": 5}
