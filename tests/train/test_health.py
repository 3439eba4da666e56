"""Numbers gone wrong: skipped updates, the end after three, a loss that diverges."""

import math

import mlx.core as mx
import pytest
import torch
from mlx.utils import tree_flatten

from mlx_yoda.config.schema import TrainConfig
from mlx_yoda.errors import UserError
from mlx_yoda.lora.binding import adapter_of
from mlx_yoda.train.forward import forward_of
from mlx_yoda.train.health import symptoms
from mlx_yoda.train.loop import optimizer_steps, train
from mlx_yoda.train.meter import Last, Meter
from mlx_yoda.train.plan import make_plan
from mlx_yoda.train.step import State, make_steps

CONFIG = TrainConfig(
    max_steps=6, per_device_train_batch_size=4, logging_steps=1, lr_scheduler_type="constant"
)
NAN, INF = math.nan, math.inf


def poisoned(steps, bad, value=NAN, only=""):
    """Steps of which some have a loss and gradients, or one of them, that are not finite."""
    taken = []

    def accumulate(sums, adapter, batch, key):
        taken.append(key)
        sums = steps.accumulate(sums, adapter, batch, key)
        if len(taken) not in bad:
            return sums
        path = next(iter(sums.gradients))
        gradient = sums.gradients[path]["lora_A"] * (1 if only == "loss" else value)
        worse = dict(sums.gradients[path], lora_A=gradient)
        loss = sums.loss * (1 if only == "gradient" else value)
        return sums._replace(gradients={**sums.gradients, path: worse}, loss=loss)

    return steps._replace(accumulate=accumulate)


@pytest.fixture
def setting(make_model, make_rows):
    """State, plan and a maker of steps; the same at every call."""
    model, layers = make_model()

    def steps(compiled=False):
        return make_steps(CONFIG, layers, forward_of(model), compiled=compiled)

    return State.fresh(adapter_of(layers)), make_plan(make_rows(24), CONFIG), steps


def same(one, other):
    pairs = zip(tree_flatten(one), tree_flatten(other), strict=True)
    return all(mx.array_equal(a, b) for (_, a), (_, b) in pairs)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("value", "only"), [(NAN, ""), (INF, ""), (NAN, "gradient"), (NAN, "loss"), (INF, "loss")]
)
def test_a_step_that_is_not_finite_changes_nothing(setting, compiled, value, only):
    state, plan, make = setting
    meter, states = Meter(), [state]
    steps = poisoned(make(compiled), {2, 4}, value, only)
    for reached, _ in optimizer_steps(state, plan, steps, CONFIG, meter):
        states.append(reached)
    for step in range(1, 7):
        before, after = states[step - 1], states[step]
        unchanged = same((before.adapter, before.moments), (after.adapter, after.moments))
        assert unchanged == (step in (2, 4))
    assert (meter.skipped, meter.skipped_in_a_row) == (2, 0)
    assert math.isfinite(meter.mean_loss(6))


def test_the_next_updates_are_those_of_torch_without_the_skipped_ones(setting):
    """AdamW's bias correction counts updates, not steps."""
    state, plan, make = setting
    steps, seen = poisoned(make(), {1, 3}), []

    def update(sums, *rest):
        seen.append(sums)
        return steps.update(sums, *rest)

    stepwise = optimizer_steps(state, plan, steps._replace(update=update), CONFIG, Meter())
    *_, (last, _) = stepwise
    names = [name for name, _ in tree_flatten(state.adapter)]
    weights = [torch.tensor(a.tolist()).requires_grad_() for _, a in tree_flatten(state.adapter)]
    adamw = torch.optim.AdamW(weights, lr=CONFIG.learning_rate, weight_decay=0.0)
    for sums in seen:
        gradients = dict(tree_flatten(sums.gradients))
        for weight, name in zip(weights, names, strict=True):
            weight.grad = torch.tensor((gradients[name] / sums.tokens).tolist())
        norm = torch.nn.utils.clip_grad_norm_(weights, CONFIG.max_grad_norm)
        if torch.isfinite(norm):
            adamw.step()
    for weight, (_, ours) in zip(weights, tree_flatten(last.adapter), strict=True):
        assert torch.allclose(weight, torch.tensor(ours.tolist()), rtol=1e-5, atol=1e-7)


def run(setting, bad):
    state, plan, make = setting
    notes, meter = [], Meter()

    def after_step(state, meter):
        notes.extend(symptoms(state.step, meter, plan))
        return False

    steps = poisoned(make(), bad)
    last = train(state, plan, steps, CONFIG, meter, lambda event: None, after_step)
    return last, notes, plan


def test_each_skipped_step_is_told_with_its_rows(setting):
    _, notes, plan = run(setting, {2, 3, 5})
    assert [note.partition(" on the")[0] for note in notes] == [
        f"the loss is nan at step {step}," for step in (2, 3, 5)
    ]
    ((_, batches),) = [found for found in plan.steps(1) if found[0] == 1]
    rows = sorted(i + 1 for batch in batches for i in batch.indices)
    assert len(rows) == 4
    assert f"training rows {', '.join(map(str, rows))}: the update was skipped (1 in" in notes[0]


def test_the_third_in_a_row_ends_the_run(setting):
    with pytest.raises(UserError) as error:
        run(setting, {3, 4, 5})
    message = str(error.value)
    for words in ("the loss is nan at step 5, on the training rows", "third in a row", "rate"):
        assert words in message


def test_a_gradient_beyond_all_bounds_is_named(setting):
    meter = Meter()
    meter.add(1, Last(2.0, INF, 1, 1, 0.1))
    (note,) = symptoms(1, meter, setting[1])
    assert note.startswith("the norm of the gradient is inf at step 1")


def losses(*values):
    """The steps at which a warning comes, and the meter."""
    meter, warned = Meter(), []
    for step, loss in enumerate(values, 1):
        meter.add(step, Last(loss, 1.0, 1, 1, 0.1))
        if list(symptoms(step, meter, plan=None)):
            warned.append(step)
    return warned, meter


def test_a_diverging_loss_is_warned_of_once_each_time():
    down, up = [2.0, 1.5, 1.0] + [0.8] * 30, [8.0] * 40
    warned, _ = losses(*down, *up, *down, *up)
    assert len(warned) == 2
    assert 33 < warned[0] < 40


@pytest.mark.parametrize(
    "values",
    [[3.0 / n + (n % 2) * 0.5 for n in range(1, 200)], [0.02, 0.5] * 50, [7.0] * 50],
    ids=["noisy descent", "small and noisy", "flat"],
)
def test_noise_is_no_divergence(values):
    assert losses(*values)[0] == []


def test_the_counters_are_part_of_what_a_checkpoint_keeps():
    _, meter = losses(*[2.0] * 20, *[9.0] * 20)
    meter.add(41, Last(NAN, NAN, 1, 1, 0.1))
    again = Meter(**meter.totals())
    for one in (meter, again):
        one.add(42, Last(NAN, NAN, 1, 1, 0.1))
    assert again.totals() == meter.totals()
    assert (again.skipped, again.skipped_in_a_row) == (2, 2)
    assert again.diverged_at is not None


def test_an_hour_asleep_is_no_time_spent_training():
    meter, said = Meter(), []
    for step, seconds in enumerate((5.0, 1.0, 1.2, 3600.0, 1.0), 1):
        meter.add(step, Last(1.0, 1.0, 100, 50, seconds))
        assert meter.last.input_tokens / meter.last.seconds >= 20
        said += symptoms(step, meter, plan=None)
    assert meter.seconds == pytest.approx(13.2)
    assert said == [
        "the machine seems to have slept for 60 minutes in step 4; they do not count as time "
        "spent training"
    ]


def test_a_step_that_is_only_slow_counts_in_full():
    meter = Meter()
    for step, seconds in enumerate((0.1, 50.0, 400.0), 1):
        meter.add(step, Last(1.0, 1.0, 100, 50, seconds))
    assert meter.seconds == pytest.approx(450.1)


@pytest.mark.parametrize(
    ("values", "warns"),
    [
        ([math.log(768)] * 60, True),  # frozen at a guess
        ([math.log(768) + 0.3 * (n % 2) for n in range(60)], True),
        ([9.0] * 60, True),  # worse than a guess
        ([7.0 - 0.03 * n for n in range(60)], False),  # from scratch, and learning
        ([2.0] * 60, False),
        ([math.log(768)] * 49, False),  # too early to say
    ],
)
def test_a_loss_that_stays_at_a_guess_is_warned_of_once(values, warns):
    meter, said = Meter(), []
    for step, loss in enumerate(values, 1):
        meter.add(step, Last(loss, 1.0, 1, 1, 0.1))
        said += [(step, note) for note in symptoms(step, meter, None, 768) if "guess" in note]
    assert [step for step, _ in said] == [50] * warns
    assert not warns or "among all 768 tokens (ln 768 = 6.64)" in said[0][1]


def test_without_a_vocabulary_nothing_is_said_of_guesses():
    assert losses(*[12.0] * 60)[0] == []
