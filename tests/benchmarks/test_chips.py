"""Predicted times are the formula's."""

import pytest

from benchmarks.chips import CHIPS, PUBLISHED, YODA, epoch, share
from mlx_yoda.recipes.forecast import forecast
from mlx_yoda.train.cost import Amount
from mlx_yoda.train.recompute import Keep


def test_the_share_is_what_was_published():
    assert all(0.3 < published.share < 0.45 for published in PUBLISHED)
    assert share() == pytest.approx(0.365, abs=0.001)


def test_time_is_operations_over_the_chip_s_speed():
    """About four operations a weight and token: forward, and backward to the input."""
    small, large = CHIPS[0], CHIPS[-1]
    weights = 3.72e9  # but for the embedding
    rough = 4 * weights * YODA.tokens / (share() * small.peak)
    assert epoch(small, Keep.EVERYTHING) == pytest.approx(rough, rel=0.05)
    quicker = epoch(small, Keep.INPUT) / epoch(large, Keep.INPUT)
    assert quicker == pytest.approx(large.peak / small.peak)


def test_the_yoda_rows_are_what_they_are_taken_for(shared):
    from mlx_yoda.config.schema import Config, DataConfig, ModelConfig

    data = DataConfig(dataset_name=str(shared / "data/yoda_sentences/yoda_sentences.csv"))
    model = ModelConfig(model_name_or_path=str(shared / "data/phi-3-mini-4k-instruct"))
    rows = forecast(Config(model=model, data=data), memory=24 * 10**9).rows
    assert rows is not None
    assert Amount.of(rows) == YODA
