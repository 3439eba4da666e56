"""Events to report."""

from collections.abc import Callable

import pytest

from mlx_yoda.report.events import Stepped


@pytest.fixture
def stepped() -> Callable[..., Stepped]:
    """Makes a step of a run of 40, logged or not."""

    def make(step: int, logged: bool = True) -> Stepped:
        return Stepped(
            step=step,
            total_steps=40,
            epoch=step / 10,
            loss=1.25,
            learning_rate=3e-4,
            grad_norm=0.5,
            input_tokens=100 * step,
            supervised_tokens=50 * step,
            input_tokens_per_second=1234.5,
            supervised_tokens_per_second=600.0,
            peak_memory=2_500_000_000,
            seconds=0.1,
            logged=logged,
        )

    return make
