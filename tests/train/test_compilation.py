"""When the step is compiled, and that it is compiled once for each shape of the first epoch."""

import mlx.core as mx
import pytest

from mlx_yoda.config.schema import TrainConfig
from mlx_yoda.lora.binding import adapter_of
from mlx_yoda.train import compilation
from mlx_yoda.train.compilation import decide
from mlx_yoda.train.forward import Arrays, forward_of
from mlx_yoda.train.plan import make_plan
from mlx_yoda.train.step import State, Sums, make_steps

on_cpu = pytest.mark.skipif(mx.default_device().type != mx.cpu, reason="needs the CPU backend")


@on_cpu
@pytest.mark.parametrize(
    ("wanted", "compiler", "compiled"),
    [("auto", "g++", False), (True, "g++", True), (False, "g++", False), (True, None, False)],
)
def test_the_cpu_compiles_only_if_asked_and_able(monkeypatch, wanted, compiler, compiled):
    monkeypatch.setattr(compilation.shutil, "which", lambda _: compiler)
    decision = decide(wanted)
    assert decision.compiled == compiled
    assert bool(decision.note) == (wanted is True and compiler is None)


def test_nothing_is_compiled_after_the_first_epoch(make_model, make_rows):
    model, layers = make_model(layers=1)
    config = TrainConfig(num_train_epochs=3, per_device_train_batch_size=4)
    plan = make_plan(make_rows(24, 6, 24), config)
    inner, traced = forward_of(model), []

    def forward(batch):  # runs only while it is traced
        traced.append(batch.tokens.shape)
        return inner(batch)

    steps = make_steps(config, layers, forward, compiled=True)
    state, after_each = State.fresh(adapter_of(layers)), []
    for _, batches in plan.steps():
        sums = Sums.zero(state.adapter)
        for batch in batches:
            sums = steps.accumulate(sums, state.adapter, Arrays.of(batch), mx.random.key(0))
        mx.eval(sums)
        after_each.append(len(traced))
    first_epoch = after_each[plan.steps_per_epoch - 1]
    assert first_epoch == len(plan.shapes) > 1
    assert after_each[-1] == first_epoch
