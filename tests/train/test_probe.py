"""The probe: as many rows at once as run within the budget, and the run untouched."""

from dataclasses import replace

import mlx.core as mx
import pytest

from mlx_yoda.config.schema import TrainConfig
from mlx_yoda.errors import UserError
from mlx_yoda.lora.binding import adapter_of
from mlx_yoda.train.forward import forward_of
from mlx_yoda.train.plan import make_plan
from mlx_yoda.train.probe import probed
from mlx_yoda.train.step import State, make_steps

CONFIG = TrainConfig(max_steps=6, per_device_train_batch_size=8)
PLENTY = 10**12


def probe(model, layers, rows, budget=PLENTY, config=CONFIG, most_rows=100):
    """The micro-batch that is found, and the sizes that were tried."""
    inner, tried = forward_of(model), []

    def forward(batch):
        count, tokens = batch.layout.rows.shape[0], batch.tokens.size
        tried.append((count, tokens))
        if count > most_rows:
            raise RuntimeError("[malloc] Unable to allocate 1000000000 bytes.")
        return inner(batch)

    steps = make_steps(config, layers, forward, compiled=False)
    plan = make_plan(rows, config)
    found = probed(plan, steps, State.fresh(adapter_of(layers)), config, budget)
    return plan, found, tried


def test_where_there_is_room_the_longest_rows_are_tried_once(make_model, make_rows):
    model, layers = make_model()
    plan, found, tried = probe(model, layers, make_rows(48))
    assert found == plan
    assert tried == [(8, plan.shapes[-1].tokens)]


def test_a_peak_over_the_budget_takes_fewer_rows(make_model, make_rows):
    model, layers = make_model()
    rows = make_rows(48, 200, 300)
    mx.clear_cache()
    probe(model, layers, rows, config=replace(CONFIG, per_device_train_batch_size=2))
    enough_for_two = int(1.2 * mx.get_peak_memory())
    _, found, tried = probe(model, layers, rows, enough_for_two)
    assert [count for count, _ in tried] == [8, 4, 2]
    assert (found.micro_batch, found.rows_per_step) == (2, 8)
    _, found, _ = probe(model, layers, rows, budget=1)
    assert found.micro_batch == 1  # nothing smaller is left to try


def test_a_machine_that_says_no_takes_fewer_rows(make_model, make_rows):
    model, layers = make_model()
    _, found, tried = probe(model, layers, make_rows(48), most_rows=3)
    assert [count for count, _ in tried] == [8, 4, 2]
    assert found.micro_batch == 2
    with pytest.raises(UserError, match=r"a single row .*Unable to allocate"):
        probe(model, layers, make_rows(48), most_rows=0)


def test_nothing_is_tried_where_rows_may_not_become_fewer(make_model, make_rows):
    model, layers = make_model()
    fixed = replace(CONFIG, auto_find_batch_size=False)
    plan, found, tried = probe(model, layers, make_rows(48), budget=1, config=fixed)
    assert found == plan
    assert not tried
