"""How many steps, which rows, which shapes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_yoda.config.schema import TrainConfig
from mlx_yoda.data.batches import needed
from mlx_yoda.data.packing import PackedRows
from mlx_yoda.data.segments import Segments
from mlx_yoda.data.shapes import choose_shapes
from mlx_yoda.errors import UserError
from mlx_yoda.train.plan import Part, make_plan, padding_share
from tests.machine import within


def batches_of(plan, start=0):
    return [(step, [b.indices for b in batches]) for step, batches in plan.steps(start)]


@pytest.mark.parametrize(
    ("config", "steps_per_epoch", "total"),
    [
        ({}, 11, 110),
        ({"num_train_epochs": 1.5}, 11, 17),
        ({"max_steps": 5}, 11, 5),
        ({"gradient_accumulation_steps": 3}, 4, 40),
    ],
)
def test_steps_are_counted_as_transformers_counts_them(make_rows, config, steps_per_epoch, total):
    plan = make_plan(make_rows(43), TrainConfig(**config))
    assert (plan.steps_per_epoch, plan.total_steps) == (steps_per_epoch, total)
    steps = batches_of(plan)
    assert [step for step, _ in steps] == list(range(total))


def test_every_row_is_seen_once_an_epoch(make_rows):
    config = TrainConfig(num_train_epochs=2, gradient_accumulation_steps=2)
    plan = make_plan(make_rows(43), config)
    steps = batches_of(plan)
    for epoch in range(2):
        taken = steps[epoch * plan.steps_per_epoch : (epoch + 1) * plan.steps_per_epoch]
        seen = [i for _, micro in taken for indices in micro for i in indices]
        assert sorted(seen) == list(range(43))


def test_going_on_in_the_middle_takes_the_same_rows(make_rows):
    plan = make_plan(make_rows(43), TrainConfig(num_train_epochs=3))
    steps = batches_of(plan)
    for start in (0, 1, 10, 11, 17, 32):
        assert batches_of(plan, start) == steps[start:]


def test_the_micro_batch_does_not_change_a_steps_rows(make_rows):
    rows = make_rows(43)
    config = TrainConfig(gradient_accumulation_steps=2)
    wide, narrow = make_plan(rows, config), make_plan(rows, config, micro_batch=1)
    for (_, one), (_, two) in zip(batches_of(wide), batches_of(narrow), strict=True):
        assert [i for part in one for i in part] == [i for part in two for i in part]
        assert all(len(part) == 1 for part in two)


def test_later_epochs_bring_no_new_shapes(make_rows):
    plan = make_plan(make_rows(200, 3, 60), TrainConfig(num_train_epochs=4))
    seen = []
    for _, batches in plan.steps():
        seen.append({(b.tokens.shape, b.rows.shape, b.targets.shape) for b in batches})
    first = set().union(*seen[: plan.steps_per_epoch])
    assert set().union(*seen) == first
    assert 1 < len(first) <= 16


def test_little_is_padded(make_rows):
    plan = make_plan(make_rows(400, 12, 49), TrainConfig(per_device_train_batch_size=4))
    assert padding_share(plan) < 0.06


@given(
    st.integers(1, 60),
    st.sampled_from([1, 2, 3, 4, 7]),
    st.integers(1, 3),
    st.sampled_from([(-1, 1.0), (-1, 2.5), (1, 1.0), (13, 1.0)]),
    st.integers(1, 4),
)
def test_the_plan_is_the_slow_ways(make_rows, count, rows_per_micro, accumulation, length, narrow):
    """Shapes and the heaviest step, of every micro-batch of every epoch one by one."""
    rows = make_rows(count, seed=count)
    config = TrainConfig(
        per_device_train_batch_size=rows_per_micro,
        gradient_accumulation_steps=accumulation,
        max_steps=length[0],
        num_train_epochs=length[1],
    )
    plan = make_plan(rows, config, narrow)
    first, later, heaviest = [], [], (0, 0)
    for step, batches in plan.steps():
        for batch in batches:
            need = needed([rows[i] for i in batch.indices])
            (first if step < plan.steps_per_epoch else later).append(need)
            heaviest = max(heaviest, (need.tokens, step))
    assert plan.shapes == tuple(choose_shapes(first, later))
    assert plan.heaviest == heaviest[1]


@pytest.mark.slow
def test_a_million_rows_are_planned_in_seconds():
    lengths = np.random.default_rng(0).integers(8, 200, 1_000_000).astype(np.int32)
    nothing = np.empty(0, np.int32)
    rows = PackedRows(Segments(nothing, nothing, lengths, lengths // 2, lengths, lengths))
    with within(20):
        plan = make_plan(rows, TrainConfig(num_train_epochs=3))
        next(plan.steps(plan.total_steps - 5))
    assert plan.total_steps == 750_000


@pytest.mark.parametrize("size", [1, 2, 3])
def test_processes_share_each_step_without_overlap_and_without_loss(make_rows, size):
    """The last step of an epoch has one row only, so that a process has none."""
    rows = make_rows(6 * size + 1)
    config = TrainConfig(num_train_epochs=2, per_device_train_batch_size=3)
    whole = make_plan(rows, config, part=Part(planned=size))
    assert whole.rows_per_step == 3 * size
    plans = [make_plan(rows, config, part=Part(rank, size, size)) for rank in range(size)]
    assert {plan.total_steps for plan in plans} == {whole.total_steps}
    for (step, one), *several in zip(whole.steps(), *(p.steps() for p in plans), strict=True):
        tokens = np.concatenate([real(batch) for batch in one])
        shared = [real(batch) for _, batches in several for batch in batches]
        assert np.array_equal(np.concatenate(shared), tokens)
        assert [i for p in plans for i in part_of(p, step)] == whole.taken(step)
        assert all(len(part_of(p, step)) <= 3 for p in plans)


def real(batch):
    """A batch's tokens of the data, each with its number in the step: `(N, 2)`."""
    tokens = batch.tokens[: batch.input_tokens]
    return np.stack([tokens, batch.first + np.arange(len(tokens))], axis=1)


def part_of(plan, step):
    _, batches = next(plan.steps(step))
    return [i for batch in batches for i in batch.indices]


def test_a_process_without_a_row_in_the_whole_run_has_a_plan(make_rows):
    config = TrainConfig(num_train_epochs=1, per_device_train_batch_size=1, max_steps=1)
    plans = [make_plan(make_rows(3), config, part=Part(rank, 2, 5)) for rank in range(2)]
    assert [len(part_of(plan, 0)) for plan in plans] == [1, 2]
    alone = replace(config, max_steps=2)
    plans = [make_plan(make_rows(3), alone, part=Part(rank, 2, 1)) for rank in range(2)]
    assert [[len(part_of(plan, step)) for step in range(2)] for plan in plans] == [[0, 0], [1, 1]]
    assert all(plan.shapes for plan in plans)


def test_fewer_rows_than_processes_are_refused(make_rows):
    with pytest.raises(UserError, match="2 training rows are too few for 3 processes"):
        make_plan(make_rows(2), TrainConfig(), part=Part(0, 3, 3))


def test_no_rows_is_an_error():
    with pytest.raises(UserError, match="no training rows"):
        make_plan([], TrainConfig())
