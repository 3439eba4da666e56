"""A short probe: the largest micro-batch of a run, tried before the run begins.

The plan predicts; the probe makes sure, and takes fewer rows at once where the prediction was too
low. The pass is thrown away: steps are pure functions, so nothing is left of it but, where they
are compiled, the compiled shape.
"""

import mlx.core as mx

from mlx_yoda.config.schema import TrainConfig
from mlx_yoda.report.events import Noted, Reporter
from mlx_yoda.train.compilation import stop_compiling
from mlx_yoda.train.loop import dropout_key, with_fewer_rows
from mlx_yoda.train.plan import Plan
from mlx_yoda.train.step import State, Steps, Sums


def probed(
    plan: Plan,
    steps: Steps,
    state: State,
    config: TrainConfig,
    budget: int,
    report: Reporter = lambda event: None,
) -> Plan:
    """The plan with as many rows at once as run within the budget.

    Args:
        plan: the run.
        steps: the halves of a step; the first is taken once, on the run's longest rows.
        state: any state of the run.
        config: says whether rows may become fewer (`auto_find_batch_size`).
        budget: bytes that MLX's allocator may hold at the peak.
        report: told if the step cannot be compiled.

    Raises:
        UserError: there is not enough memory for a single row.
    """
    while config.auto_find_batch_size:
        try:
            if _peak(plan, steps, state) <= budget or plan.micro_batch == 1:
                break
            plan = with_fewer_rows(plan, config)
        except (MemoryError, RuntimeError) as error:
            if note := stop_compiling(error):
                report(Noted(note))
            else:
                plan = with_fewer_rows(plan, config, error)
    return plan


def _peak(plan: Plan, steps: Steps, state: State) -> int:
    """Bytes that the largest micro-batch takes."""
    step, batches = next(plan.steps(plan.heaviest))
    mx.reset_peak_memory()
    batch = max(batches, key=lambda batch: len(batch.tokens), default=None)
    if batch is None:  # one of several processes, without a row in so short a run
        return 0
    key = dropout_key(plan.seed, step)
    mx.eval(steps.accumulate(Sums.zero(state.adapter), state.adapter, steps.arrays(batch), key))
    return mx.get_peak_memory()
