"""This machine's speed on products of a model's shapes."""

import time

import mlx.core as mx
import pytest

from mlx_yoda.config.schema import LoraConfig
from mlx_yoda.model.sizes import sizes_of
from mlx_yoda.train import calibration
from mlx_yoda.train.calibration import calibrate
from tests.machine import within

CONFIG = {
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "intermediate_size": 128,
    "num_attention_heads": 2,
    "vocab_size": 100,
}


@pytest.mark.parametrize(
    ("dtype", "quantization"),
    [
        (mx.float32, None),
        (mx.bfloat16, None),
        (mx.float32, {"group_size": 32, "bits": 4}),
        (mx.bfloat16, {"group_size": 32, "bits": 4, "mode": "mxfp4"}),
    ],
)
def test_any_base_is_measured_in_about_the_time(dtype, quantization):
    sizes = sizes_of(CONFIG, LoraConfig())
    calibrate(sizes, 16, dtype=dtype, quantization=quantization, seconds=0.01)  # warm
    with within(3, time.perf_counter):
        speed = calibrate(sizes, 128, dtype=dtype, quantization=quantization, seconds=0.3)
    assert speed.products > 0 and speed.elements > 0


def test_a_width_that_no_group_divides_is_measured_as_it_is_loaded():
    """Such a weight is not packed."""
    sizes = sizes_of(CONFIG | {"hidden_size": 48, "intermediate_size": 100}, LoraConfig())
    packed = {"group_size": 64, "bits": 4}
    speed = calibrate(sizes, 16, dtype=mx.float32, quantization=packed, seconds=0.01)
    assert speed.products > 0


def test_the_speed_is_that_of_the_products(monkeypatch):
    """A pass that takes a hundred times the time tells a hundredth of the speed."""
    now = 0.0

    def passes(seconds):
        def run(count):
            nonlocal now
            now += seconds * count

        return lambda count: lambda: run(count)

    monkeypatch.setattr(calibration.time, "perf_counter", lambda: now)
    slow = calibration._a_second(passes(2e-3), 16, 0.3)
    fast = calibration._a_second(passes(2e-5), 1600, 0.3)
    assert slow == pytest.approx(1 / 2e-3)
    assert fast == pytest.approx(1 / 2e-5)


def test_a_slow_machine_is_not_kept_busy():
    """Where one token takes a second, the time is not spent on all of a micro-batch."""
    taken = []

    def passes(count):
        taken.append(count)
        return lambda: time.sleep(0.01 * count)

    calibration._a_second(passes, 1024, 0.5)
    assert max(taken) <= 16
