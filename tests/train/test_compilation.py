"""When the step is compiled, and that it is compiled once for each shape of the first epoch."""

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlx_yoda.config.schema import TrainConfig
from mlx_yoda.lora.binding import adapter_of
from mlx_yoda.report.events import Noted
from mlx_yoda.train import compilation
from mlx_yoda.train.compilation import decide
from mlx_yoda.train.forward import Arrays, forward_of
from mlx_yoda.train.loop import train
from mlx_yoda.train.meter import Meter
from mlx_yoda.train.plan import make_plan
from mlx_yoda.train.probe import probed
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


@on_cpu
def test_where_mlx_s_compiler_is_off_the_reason_is_told(monkeypatch):
    monkeypatch.setenv("MLX_DISABLE_COMPILE", "no space left in /tmp")
    assert decide(True) == (
        False,
        "train.compile: the step runs uncompiled (MLX_DISABLE_COMPILE: no space left in /tmp)",
    )
    assert decide("auto") == (False, None)


def test_a_step_that_cannot_be_compiled_runs_uncompiled_to_the_same_weights(
    make_model, make_rows, monkeypatch
):
    """As on a disk that fills up: in the probe, or in the middle of a run."""
    model, layers = make_model(layers=1)
    config = TrainConfig(max_steps=4, per_device_train_batch_size=4)
    plan = make_plan(make_rows(24, 6, 24), config)
    fresh, events = State.fresh(adapter_of(layers)), []
    steps = make_steps(config, layers, forward_of(model), compiled=False)
    wanted = train(fresh, plan, steps, config, Meter(), events.append, lambda *_: False)
    calls, switched_off = [], []

    def failing_at(call):
        def accumulate(*args):
            calls.append(call)
            if len(calls) == call and not switched_off:
                raise RuntimeError("[Compile::eval_cpu] Failed to compile function F: full\n")
            return steps.accumulate(*args)

        return steps._replace(accumulate=accumulate)

    monkeypatch.setattr(compilation.mx, "disable_compile", lambda: switched_off.append(True))
    events.clear()
    reached = train(fresh, plan, failing_at(2), config, Meter(), events.append, lambda *_: False)
    said = "MLX cannot compile, so the steps run uncompiled "
    said += "([Compile::eval_cpu] Failed to compile function F: full)"
    assert [event.message for event in events if isinstance(event, Noted)] == [said]
    for (path, ours), (_, theirs) in zip(
        tree_flatten(reached.adapter), tree_flatten(wanted.adapter), strict=True
    ):
        assert mx.array_equal(ours, theirs), path
    for kept in (calls, switched_off, events):
        kept.clear()
    assert probed(plan, failing_at(1), fresh, config, 1 << 40, events.append) is plan
    assert [event.message for event in events] == [said]
    assert switched_off == [True]


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
