"""The training loop."""

import time
from collections.abc import Callable, Iterator
from typing import cast

import mlx.core as mx
import numpy as np

from mlx_yoda.config.schema import TrainConfig
from mlx_yoda.report.events import Noted, Reporter, Stepped
from mlx_yoda.train.compilation import stop_compiling
from mlx_yoda.train.group import Group
from mlx_yoda.train.meter import Last, Meter
from mlx_yoda.train.plan import Plan, make_plan
from mlx_yoda.train.schedule import learning_rate
from mlx_yoda.train.shortage import lacks_memory, shortage
from mlx_yoda.train.step import State, Steps, Sums

AfterStep = Callable[[State, Meter], bool]


def train(
    state: State,
    plan: Plan,
    steps: Steps,
    config: TrainConfig,
    meter: Meter,
    report: Reporter,
    after_step: AfterStep,
    group: Group | None = None,
) -> State:
    """Train from `state` to the end of the plan.

    Args:
        state: where to start: fresh, or of a checkpoint.
        plan: which rows each step takes.
        steps: the compiled halves of a step.
        config: learning rate, schedule, logging interval.
        meter: totals so far; it is counted on.
        report: told of every step.
        after_step: evaluates and saves where it is time, and says whether to stop there.
        group: the processes that train together; None for this one alone.

    Returns:
        The state after the last step taken.
    """
    while state.step < plan.total_steps:
        try:
            for reached, stepped in optimizer_steps(state, plan, steps, config, meter, group):
                state = reached
                report(stepped)
                if after_step(state, meter):
                    return state
        except (MemoryError, RuntimeError) as error:  # each goes on from the last state
            if note := stop_compiling(error):
                report(Noted(note))
                continue
            plan = with_fewer_rows(plan, config, error)
            report(Noted(f"out of memory: going on with {plan.micro_batch} rows at once"))
    return state


def optimizer_steps(
    state: State,
    plan: Plan,
    steps: Steps,
    config: TrainConfig,
    meter: Meter,
    group: Group | None = None,
) -> Iterator[tuple[State, Stepped]]:
    """Take one optimizer step after another; arguments as in `train`."""
    group = group or Group()
    for step, batches in plan.steps(state.step):
        started, input_tokens = time.perf_counter(), 0
        rate = learning_rate(config, step, plan.total_steps)

        sums = Sums.zero(state.adapter)
        key = dropout_key(plan.seed, step)
        for batch in batches:  # the next batch is made while this one runs
            sums = steps.accumulate(sums, state.adapter, steps.arrays(batch), key)
            mx.async_eval(sums)
            input_tokens += batch.input_tokens

        sums, input_tokens = group.total(sums, step, input_tokens)
        adapter, moments, norm = steps.update(
            sums, state.adapter, state.moments, mx.array(rate), mx.array(step + 1.0 - meter.skipped)
        )
        mx.eval(adapter, moments, norm)

        state = State(step + 1, adapter, moments)
        loss, tokens = _number(sums.loss / sums.tokens), int(_number(sums.tokens))
        seconds = time.perf_counter() - started
        meter.add(state.step, Last(loss, _number(norm), input_tokens, tokens, seconds))
        yield state, _stepped(state.step, plan, config, meter, rate)


def with_fewer_rows(plan: Plan, config: TrainConfig, error: Exception | None = None) -> Plan:
    """The same run with half as many rows at once, since there is too little memory.

    Raises:
        UserError: the batch cannot shrink, or may not.
        Exception: the error, if it told something else.
    """
    if error is not None and not lacks_memory(error):
        raise error
    if error is not None and not (config.auto_find_batch_size and plan.micro_batch > 1):
        raise shortage(error, plan.micro_batch, config) from error
    mx.clear_cache()
    return make_plan(plan.rows, config, -(-plan.micro_batch // 2), plan.part)


def dropout_key(seed: int, step: int) -> mx.array:
    """The PRNG key `(2,)` of an optimizer step: of its place in the run and nothing else."""
    words = np.random.SeedSequence([seed, step]).generate_state(2, np.uint32)
    return mx.array(words)


def _stepped(step: int, plan: Plan, config: TrainConfig, meter: Meter, rate: float) -> Stepped:
    logged = step % plan.interval(config.logging_steps) == 0 or step == plan.total_steps
    last = meter.last
    return Stepped(
        step=step,
        total_steps=plan.total_steps,
        epoch=plan.epoch(step),
        loss=meter.interval_mean() if logged else last.loss,
        learning_rate=rate,
        grad_norm=last.grad_norm,
        input_tokens=meter.input_tokens,
        supervised_tokens=meter.supervised_tokens,
        input_tokens_per_second=last.input_tokens / last.seconds,
        supervised_tokens_per_second=last.supervised_tokens / last.seconds,
        peak_memory=mx.get_peak_memory(),
        seconds=last.seconds,
        asleep=last.asleep or None,
        logged=logged,
    )


def _number(scalar: mx.array) -> float:
    return cast(float, scalar.item())
