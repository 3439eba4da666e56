"""Order of rows, shapes and collation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_yoda.data.batches import collate, epoch_order, micro_batches, needed
from mlx_yoda.data.packing import Packed
from mlx_yoda.data.shapes import Shape, choose_shapes

lengths = st.lists(st.integers(2, 40), min_size=1, max_size=60)


def rows_of(lengths: list[int], seed: int = 0) -> list[Packed]:
    rng = np.random.default_rng(seed)
    rows = []
    for length in lengths:
        supervised = rng.random(length) < 0.5
        supervised[0], supervised[-1] = False, True
        rows.append(Packed(rng.integers(1, 99, length).astype(np.int32), supervised, (length,)))
    return rows


@given(lengths, st.integers(1, 9), st.integers(0, 5))
def test_every_row_is_taken_exactly_once_an_epoch(lengths, rows_per_step, epoch):
    steps = epoch_order(lengths, rows_per_step, seed=1, epoch=epoch)
    assert sorted(i for step in steps for i in step) == list(range(len(lengths)))
    assert len(steps) == -(-len(lengths) // rows_per_step)
    assert sum(len(step) < rows_per_step for step in steps) <= 1
    for step in steps:
        taken = [lengths[i] for i in step]
        assert taken == sorted(taken, reverse=True)


def test_the_order_depends_on_seed_and_epoch_alone():
    lengths = list(range(2, 90))
    one = epoch_order(lengths, 4, seed=1, epoch=0)
    np.random.seed(5)
    assert one == epoch_order(lengths, 4, seed=1, epoch=0)
    assert one != epoch_order(lengths, 4, seed=2, epoch=0)
    assert one != epoch_order(lengths, 4, seed=1, epoch=1)


@given(lengths, st.integers(1, 9), st.integers(1, 5), st.integers(1, 16))
def test_batches_hold_their_rows_exactly(lengths, rows_per_step, size, limit):
    rows = rows_of(lengths)
    order = epoch_order(lengths, rows_per_step, seed=0, epoch=0)
    needs = [
        needed([rows[i] for i in step[at : at + size]])
        for step in order
        for at in range(0, len(step), size)
    ]
    shapes = choose_shapes(needs, limit=limit)
    assert len(shapes) <= limit
    for step in order:
        for batch in micro_batches(rows, step, size, shapes):
            check(batch, [rows[i] for i in batch.indices])


def check(batch, rows: list[Packed]) -> None:
    n, (b, t) = len(batch.tokens), batch.rows.shape
    assert Shape(n, b, t, len(batch.targets)).holds(needed(rows))
    # Every row of the grid reads its row's tokens, whatever padding follows.
    for place, row in zip(batch.rows, rows, strict=False):
        np.testing.assert_array_equal(batch.tokens[place[: len(row.tokens)]], row.tokens)
    # The two gathers are each other's inverse on tokens, and lead from padding to padding.
    real = np.arange(n) < batch.input_tokens
    back = batch.rows.ravel()[batch.flat]
    np.testing.assert_array_equal(back[real], np.arange(n)[real])
    assert not real[back[~real]].any()
    on_grid = np.zeros(b * t, bool)
    on_grid[batch.flat[real]] = True
    assert not real[batch.rows.ravel()[~on_grid]].any()
    assert on_grid.sum() == batch.input_tokens
    # The targets are each supervised position's token, seen from the position before.
    wanted = np.concatenate([row.tokens[1:][row.supervised[1:]] for row in rows])
    m = batch.supervised_tokens
    np.testing.assert_array_equal(batch.targets[:m], wanted)
    np.testing.assert_array_equal(batch.tokens[batch.loss_at[:m] + 1], wanted)
    assert batch.weights.sum() == m == len(wanted)


@given(lengths, lengths, st.integers(1, 6))
def test_later_epochs_fit_the_shapes_of_the_first(first, later, limit):
    one = [needed(rows_of([length, length])) for length in first]
    two = [needed(rows_of([length, length + 1])) for length in later]
    shapes = choose_shapes(one, two, limit)
    assert len(shapes) <= limit
    used = {min(s for s in shapes if s.holds(need)) for need in one}
    for need in two:
        assert min(s for s in shapes if s.holds(need))
    assert len(used) >= 1


def test_full_rows_are_not_padded():
    rows = rows_of([64] * 4)
    (shape,) = choose_shapes([needed(rows)])
    assert (shape.tokens, shape.rows, shape.length) == (256, 4, 64)


def test_rows_that_fit_no_shape_are_a_mistake_of_ours():
    rows = rows_of([10, 12])
    with pytest.raises(ValueError, match="no shape"):
        collate(rows, [Shape(8, 2, 8, 8)])
