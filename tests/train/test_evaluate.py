"""Held-out loss: every row counts, once."""

import math

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlx_yoda.train.evaluate import held_out_loss, perplexity


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_the_loss_is_that_of_one_row_at_a_time(make_model, make_rows, batch_size):
    model, _ = make_model()
    rows = make_rows(10)
    total, tokens = held_out_loss(model, rows, batch_size)
    expected = 0.0
    for row in rows:
        losses = nn.losses.cross_entropy(
            model(mx.array(row.tokens[None]))[0, :-1], mx.array(row.tokens[1:])
        )
        expected += (losses * mx.array(row.supervised[1:].astype("float32"))).sum().item()
    assert tokens == sum(int(row.supervised.sum()) for row in rows)
    assert total == pytest.approx(expected, rel=1e-5)


def test_a_loss_without_bounds_has_a_perplexity_without_bounds():
    assert perplexity(2.0) == math.exp(2.0)
    assert perplexity(1e6) == math.inf
    assert math.isnan(perplexity(math.nan))
