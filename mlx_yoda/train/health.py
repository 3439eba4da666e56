"""Numbers gone wrong: skipped updates, a loss that diverges or is a mere guess, and when it ends.

The update itself skips a loss or gradient that is not finite (`train.step`); the meter counts it.
"""

import math
from collections.abc import Iterator

from mlx_yoda.errors import UserError
from mlx_yoda.train.meter import Meter
from mlx_yoda.train.plan import Plan

_ENOUGH = 3  # skipped updates in a row
_PATIENCE = 50  # steps that a model has to do better than a guess
_SHOWN = 24  # rows of a batch that are named


def symptoms(step: int, meter: Meter, plan: Plan, vocab_size: int | None = None) -> Iterator[str]:
    """What is wrong with the step that was just taken, in words; mostly nothing.

    Args:
        step: its number, from 1.
        meter: the totals with this step.
        plan: the run's steps.
        vocab_size: how many tokens the model chooses among, if that is known.

    Raises:
        UserError: a third update in a row had to be skipped.
    """
    if meter.skipped_in_a_row:
        what = f"{_what(meter)} at step {step}, on the training rows {_rows(step, plan)}"
        if meter.skipped_in_a_row == _ENOUGH:
            raise UserError(
                f"{what}: the third in a row, so the run stops. The weights are those before the "
                "three, and so are the checkpoints. Likely causes: a learning rate that is too "
                "high, numbers beyond float16 (model.dtype: bfloat16 or float32), a base whose "
                "weights are damaged, or those rows."
            )
        yield f"{what}: the update was skipped ({meter.skipped} in all)"
    if asleep := meter.last.asleep:
        yield (
            f"the machine seems to have slept for {asleep / 60:,.0f} minutes in step {step}; they "
            "do not count as time spent training"
        )
    if meter.diverged_at == step:
        yield (
            f"the loss diverges: about {meter.smooth_loss:.3g} at step {step}, and it was down to "
            f"{meter.lowest_loss:.3g}; a lower learning rate or a warm-up may help"
        )
    guess = math.log(vocab_size) if vocab_size else math.inf  # each token as likely as any other
    if step == _PATIENCE and meter.lowest_loss is not None and meter.lowest_loss > 0.95 * guess:
        yield (
            f"after {step} steps the loss is {meter.smooth_loss:.3g}, which is that of a guess "
            f"among all {vocab_size:,} tokens (ln {vocab_size} = {guess:.3g}): the base may be "
            "untrained or damaged, or its tokenizer another model's"
        )


def _what(meter: Meter) -> str:
    last = meter.last
    if last.loss - last.loss != 0:  # neither infinite nor NaN leaves 0
        return f"the loss is {last.loss}"
    return f"the norm of the gradient is {last.grad_norm}"


def _rows(step: int, plan: Plan) -> str:
    """The rows of a step that was taken, counted from 1 as the data was read and packed."""
    rows = sorted(index + 1 for index in plan.taken(step - 1))
    shown = ", ".join(map(str, rows[:_SHOWN]))
    return f"{shown} and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else shown
