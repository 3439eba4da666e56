"""Accumulation, clipping and the two halves of a step."""

from dataclasses import replace

import mlx.core as mx
import pytest

from mlx_yoda.config.schema import LoraConfig, TrainConfig
from mlx_yoda.lora.binding import adapter_of
from mlx_yoda.train.forward import Arrays, forward_of
from mlx_yoda.train.plan import make_plan
from mlx_yoda.train.step import State, Sums, make_steps

CONFIG = TrainConfig(per_device_train_batch_size=8, max_steps=1)
KEY = mx.random.key(0)


def gathered(model, layers, rows, micro_batch, compiled=False):
    """The sums of the first step, computed so many rows at a time."""
    plan = make_plan(rows, CONFIG, micro_batch)
    steps = make_steps(CONFIG, layers, forward_of(model), compiled=compiled)
    adapter = adapter_of(layers)
    sums = Sums.zero(adapter)
    ((_, batches),) = plan.steps()
    for batch in batches:
        sums = steps.accumulate(sums, adapter, Arrays.of(batch), KEY)
    return steps, sums


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("micro_batch", [1, 3, 4])
def test_micro_batches_add_up_to_one_batch(make_model, make_rows, distance, micro_batch, dropout):
    """Dropout's masks too are a token's own, whichever rows are computed with it."""
    model, layers = make_model(lora=LoraConfig(lora_dropout=dropout))
    rows = make_rows(8)
    _, whole = gathered(model, layers, rows, 8)
    _, parts = gathered(model, layers, rows, micro_batch)
    assert parts.tokens.item() == whole.tokens.item()
    assert parts.loss.item() == pytest.approx(whole.loss.item(), rel=1e-6)
    assert distance(parts.gradients, whole.gradients) < 1e-6


def test_compiled_is_eager(make_model, make_rows, distance):
    model, layers = make_model()
    rows = make_rows(8)
    state = State.fresh(adapter_of(layers))
    results = []
    for compiled in (False, True):
        steps, sums = gathered(model, layers, rows, 4, compiled)
        results.append(
            steps.update(sums, state.adapter, state.moments, mx.array(1e-3), mx.array(1.0))
        )
    (eager, _, eager_norm), (compiled, _, compiled_norm) = results
    assert eager_norm.item() == pytest.approx(compiled_norm.item(), rel=1e-6)
    assert distance(compiled, eager) < 1e-6


def test_nothing_is_left_in_the_model(make_model, make_rows):
    model, layers = make_model()
    before = adapter_of(layers)
    gathered(model, layers, make_rows(8), 4, compiled=True)
    for path, layer in layers.items():
        assert layer.lora_A is before[path]["lora_A"]
        assert layer.dropout_key is None
    mx.eval(model.parameters())  # a tracer left behind would raise


def test_no_clipping_without_a_limit(make_model, make_rows):
    model, layers = make_model()
    _, sums = gathered(model, layers, make_rows(8), 8)
    state = State.fresh(adapter_of(layers))
    moved = {}
    for limit in (0.0, 1e-9, 1e9):
        steps = make_steps(
            replace(CONFIG, max_grad_norm=limit), layers, forward_of(model), compiled=False
        )
        _, moments, _ = steps.update(
            sums, state.adapter, state.moments, mx.array(1e-3), mx.array(1.0)
        )
        moved[limit] = next(iter(moments.first.values()))["lora_A"]
    assert mx.allclose(moved[0.0], moved[1e9])
    assert mx.abs(moved[1e-9]).max() < 1e-6 * mx.abs(moved[0.0]).max()
