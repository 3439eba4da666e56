"""Order of rows, shapes and collation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_yoda.data.batches import EpochOrder, collate, epoch_order, micro_batches, needed, share
from mlx_yoda.data.packing import Packed, PackedRows
from mlx_yoda.data.shapes import Shape, choose_shapes, smallest

lengths = st.lists(st.integers(2, 40), min_size=1, max_size=60)


def rows_of(lengths: list[int], seed: int = 0) -> list[Packed]:
    rng = np.random.default_rng(seed)
    rows = []
    for length in lengths:
        supervised = rng.random(length) < 0.5
        supervised[0], supervised[-1] = False, True
        rows.append(Packed(rng.integers(1, 99, length).astype(np.int32), supervised, (length,)))
    return rows


def steps_of(order: EpochOrder) -> list[list[int]]:
    return [order.step(i) for i in range(len(order.starts) - 1)]


def slow_order(lengths: list[int], rows_per_step: int, seed: int, epoch: int) -> list[list[int]]:
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths)).tolist()
    steps = []
    for start in range(0, len(order), 8 * rows_per_step):
        pool = sorted(order[start : start + 8 * rows_per_step], key=lambda i: -lengths[i])
        steps += [pool[i : i + rows_per_step] for i in range(0, len(pool), rows_per_step)]
    return [steps[i] for i in rng.permutation(len(steps))]


def slow_shapes(first: list[Shape], later: list[Shape], limit: int) -> list[Shape]:
    """As `choose_shapes`, one need after the other."""
    low, high = min(n.tokens for n in first), max(n.tokens for n in first)
    width = max(1, -(-(high - low + 1) // limit))
    groups: dict[int, list[Shape]] = {}
    for need in first:
        groups.setdefault((need.tokens - low) // width, []).append(need)
    occupied = sorted(groups)
    for need in later:
        wanted = (need.tokens - low) // width
        groups[next((g for g in occupied if g >= wanted), occupied[-1])].append(need)
    shapes: list[Shape] = []
    for group in occupied:
        needs, floor = groups[group], shapes[-1] if shapes else Shape(0, 0, 0, 0)
        tokens, rows, length, targets = (max(sizes) for sizes in zip(*needs, floor, strict=True))
        exact = Shape(tokens, rows, length, -(-targets // 8) * 8)
        if all(exact.holds(need) for need in needs):
            shapes.append(exact)
            continue
        tokens = -(-max(tokens, *(need.tokens + 1 for need in needs)) // 8) * 8
        length = max(-(-length // 8) * 8, -(-tokens // rows // 8) * 8)
        shapes.append(Shape(tokens, rows, length, exact.targets))
    used = sorted({smallest(need, shapes) for need in first})
    return [*used[:-1], shapes[-1]]


@given(lengths, st.integers(1, 9), st.integers(0, 5))
def test_every_row_is_taken_exactly_once_an_epoch(lengths, rows_per_step, epoch):
    steps = steps_of(epoch_order(lengths, rows_per_step, seed=1, epoch=epoch))
    assert steps == slow_order(lengths, rows_per_step, seed=1, epoch=epoch)
    assert sorted(i for step in steps for i in step) == list(range(len(lengths)))
    assert len(steps) == -(-len(lengths) // rows_per_step)
    assert sum(len(step) < rows_per_step for step in steps) <= 1
    for step in steps:
        taken = [lengths[i] for i in step]
        assert taken == sorted(taken, reverse=True)


@given(lengths, st.integers(1, 9), st.integers(1, 5))
def test_processes_share_each_step_evenly_each_row_once(lengths, rows_per_step, size):
    rows = rows_of(lengths)
    order = epoch_order(lengths, rows_per_step, seed=1, epoch=0)
    shares = [order.share(rank, size) for rank in range(size)]
    for index, step in enumerate(steps_of(order)):
        parts = [one.step(index) for one in shares]
        assert [i for part in parts for i in part] == step
        assert {len(part) for part in parts} <= {len(step) // size, -(-len(step) // size)}
        for rank, part in enumerate(parts):
            start, stop = share(len(step), rank, size)
            assert part == step[start:stop]
    for one in shares:
        steps, needs = one.needs(PackedRows.of(rows), 2)
        cut = [p[i : i + 2] for p in steps_of(one) for i in range(0, len(p), 2)]
        assert [Shape(*need) for need in needs] == [needed([rows[i] for i in c]) for c in cut]
        assert len(steps) == len(needs)


def test_the_order_depends_on_seed_and_epoch_alone():
    lengths = list(range(2, 90))
    one = steps_of(epoch_order(lengths, 4, seed=1, epoch=0))
    np.random.seed(5)
    assert one == steps_of(epoch_order(lengths, 4, seed=1, epoch=0))
    assert one != steps_of(epoch_order(lengths, 4, seed=2, epoch=0))
    assert one != steps_of(epoch_order(lengths, 4, seed=1, epoch=1))


@given(lengths, st.integers(1, 9), st.integers(1, 5), st.integers(1, 16))
def test_batches_hold_their_rows_exactly(lengths, rows_per_step, size, limit):
    rows = rows_of(lengths)
    order = epoch_order(lengths, rows_per_step, seed=0, epoch=0)
    numbers, found = order.needs(PackedRows.of(rows), size)
    order = steps_of(order)
    parts = [(i, s[at : at + size]) for i, s in enumerate(order) for at in range(0, len(s), size)]
    needs = [needed([rows[i] for i in part]) for _, part in parts]
    assert numbers.tolist() == [number for number, _ in parts]
    assert found.tolist() == [list(need) for need in needs]
    shapes = choose_shapes(needs, limit=limit)
    assert shapes == slow_shapes(needs, [], limit)
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
    assert shapes == slow_shapes(one, two, limit)
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
