from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_yoda.data.chat import Example
from mlx_yoda.data.packing import Packed, PackedRows, first_fit_decreasing, pack
from mlx_yoda.errors import UserError

lengths_and_capacity = st.integers(2, 40).flatmap(
    lambda capacity: st.tuples(
        st.lists(st.integers(2, capacity), min_size=1, max_size=60), st.just(capacity)
    )
)


def make(lengths: list[int], whole: bool = True) -> list[Example]:
    """Examples whose tokens are all different; all but the first supervised, or only the last."""
    starts = np.cumsum([0, *lengths])
    examples = []
    for start, length in zip(starts, lengths, strict=False):
        places = np.arange(length)
        supervised = places > 0 if whole else places == length - 1
        examples.append(
            Example(np.arange(start, start + length, dtype=np.int32), supervised, whole)
        )
    return examples


def as_lists(members: np.ndarray, starts: np.ndarray) -> list[list[int]]:
    return [part.tolist() for part in np.split(members, starts[1:-1])]


def joined(examples: list[Example]) -> Packed:
    return Packed(
        tokens=np.concatenate([example.tokens for example in examples]),
        supervised=np.concatenate([example.supervised for example in examples]),
        lengths=tuple(len(example.tokens) for example in examples),
    )


def slow_none(examples: list[Example], capacity: int) -> list[Packed]:
    return [joined([example]) for example in examples]


def slow_best_fit(examples: list[Example], capacity: int) -> list[Packed]:
    bins = slow_first_fit_decreasing([len(e.tokens) for e in examples], capacity)
    return [joined([examples[i] for i in row]) for row in bins]


def slow_concat(examples: list[Example], capacity: int) -> list[Packed]:
    tokens = np.concatenate([e.tokens for e in examples])
    first = np.concatenate([np.arange(len(e.tokens)) == 0 for e in examples])
    whole = np.concatenate([np.full(len(e.tokens), e.whole) for e in examples])
    supervised = np.where(first, whole, np.concatenate([e.supervised for e in examples]))
    starts = range(0, len(tokens) - capacity + 1, capacity)
    supervised[list(starts)] = False
    rows = [slice(start, start + capacity) for start in starts]
    return [Packed(tokens[r], supervised[r], (capacity,)) for r in rows if supervised[r].any()]


def slow_first_fit_decreasing(lengths: list[int], capacity: int) -> list[list[int]]:
    bins: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        for taken in bins:
            if sum(lengths[j] for j in taken) + lengths[i] <= capacity:
                taken.append(i)
                break
        else:
            bins.append([i])
    return bins


@given(lengths_and_capacity)
def test_first_fit_decreasing_is_what_it_says(case: tuple[list[int], int]) -> None:
    assert as_lists(*first_fit_decreasing(*case)) == slow_first_fit_decreasing(*case)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60))
def test_first_fit_decreasing_with_room_for_many_of_the_same(lengths: list[int]) -> None:
    found = as_lists(*first_fit_decreasing(lengths, 100))
    assert found == slow_first_fit_decreasing(lengths, 100)


@given(lengths_and_capacity, st.booleans())
def test_rows_are_the_old_ways(case: tuple[list[int], int], whole: bool) -> None:
    """Bit for bit those of lists of arrays, as they were made before there were flat arrays."""
    lengths, capacity = case
    examples = make(lengths, whole)
    for packing, slow in (
        ("none", slow_none),
        ("best_fit", slow_best_fit),
        ("concat", slow_concat),
    ):
        wanted = slow(examples, capacity)
        if not wanted:
            continue
        rows = pack(examples, packing, capacity)  # type: ignore[arg-type]
        same_rows(rows, wanted)
        same_rows(PackedRows.of(wanted), wanted)
        assert rows.digest() == PackedRows.of(wanted).digest()


def same_rows(rows: PackedRows, wanted: list[Packed]) -> None:
    assert rows.lengths.tolist() == [len(row.tokens) for row in wanted]
    assert rows.targets.tolist() == [row.supervised[1:].sum() for row in wanted]
    for row, other in zip(rows, wanted, strict=True):
        assert row.lengths == other.lengths
        assert (row.tokens.dtype, row.supervised.dtype) == (np.int32, bool)
        np.testing.assert_array_equal(row.tokens, other.tokens)
        np.testing.assert_array_equal(row.supervised, other.supervised)


@given(lengths_and_capacity)
def test_best_fit_keeps_every_example_once_and_whole(case: tuple[list[int], int]) -> None:
    lengths, capacity = case
    examples = make(lengths, whole=False)
    rows = pack(examples, "best_fit", capacity)
    segments = []
    for row in rows:
        assert len(row.tokens) == len(row.supervised) == sum(row.lengths) <= capacity
        cuts = np.cumsum(row.lengths)[:-1]
        parts = zip(np.split(row.tokens, cuts), np.split(row.supervised, cuts), strict=True)
        segments += [(tuple(t.tolist()), tuple(s.tolist())) for t, s in parts]
    wanted = [(tuple(e.tokens.tolist()), tuple(e.supervised.tolist())) for e in examples]
    assert sorted(segments) == sorted(wanted)
    assert not any(supervised[0] for _, supervised in segments)


@given(lengths_and_capacity)
def test_concat_is_the_chained_stream(case: tuple[list[int], int]) -> None:
    lengths, capacity = case
    examples = make(lengths)
    count = sum(lengths) // capacity
    if not count:
        with pytest.raises(UserError, match="too few for one row"):
            pack(examples, "concat", capacity)
        return
    rows = pack(examples, "concat", capacity)
    assert len(rows) == count
    chained = np.concatenate([row.tokens for row in rows])
    assert chained.dtype == np.int32
    np.testing.assert_array_equal(chained, np.arange(count * capacity))
    for row in rows:
        assert row.lengths == (capacity,)
        np.testing.assert_array_equal(row.supervised, np.arange(capacity) > 0)


def test_concat_supervises_completions_only_and_drops_rows_without() -> None:
    rows = pack(make([3, 9, 4], whole=False), "concat", 4)  # targets: tokens 2, 11 and 15
    assert [row.tokens.tolist() for row in rows] == [[0, 1, 2, 3], [8, 9, 10, 11], [12, 13, 14, 15]]
    assert [np.flatnonzero(row.supervised).tolist() for row in rows] == [[2], [3], [3]]


def test_concat_leaves_the_examples_as_they_are() -> None:
    examples = make([4, 4, 4])
    pack(examples, "concat", 3)
    for example in examples:
        assert example.supervised.tolist() == [False, True, True, True]


def test_none_is_an_example_a_row() -> None:
    examples = make([5, 2, 9])
    rows = pack(examples, "none", 4)
    assert [row.lengths for row in rows] == [(5,), (2,), (9,)]
    for row, example in zip(rows, examples, strict=True):
        np.testing.assert_array_equal(row.tokens, example.tokens)
        np.testing.assert_array_equal(row.supervised, example.supervised)


@pytest.mark.parametrize("packing", ["none", "best_fit"])
def test_nothing_packs_into_nothing(packing: str) -> None:
    assert list(pack([], packing, 8)) == []  # type: ignore[arg-type]


def test_an_example_longer_than_a_row_is_refused() -> None:
    with pytest.raises(UserError, match="an example of 9 tokens does not fit into rows of 8"):
        pack(make([3, 9]), "best_fit", 8)
    with pytest.raises(UserError, match="together have 0 tokens"):
        pack([], "concat", 8)


def test_many_examples_are_packed_in_little_time() -> None:
    lengths = np.random.default_rng(0).integers(1, 500, 20_000).tolist()
    assert len(first_fit_decreasing(lengths, 2048)[1]) - 1 <= sum(lengths) / 2048 * 1.01


def test_rows_are_counted_from_both_ends_and_sliced() -> None:
    rows = pack(make([5, 2, 9]), "none", 4)
    assert [len(row.tokens) for row in (rows[-1], rows[0], *rows[1:])] == [9, 5, 2, 9]
    with pytest.raises(IndexError):
        rows[3]


def test_a_digest_tells_the_smallest_difference() -> None:
    """In a token, in a target, in the order and in what shares a row."""
    base = make([5, 2, 9])
    other = make([5, 2, 9])
    other[1].supervised[1] = False
    later = [*base[:2], replace(base[2], tokens=base[2].tokens + (np.arange(9) == 8))]
    cases = [base, other, base[::-1], later]
    digests = {pack(examples, "none", 16).digest() for examples in cases}
    digests |= {pack(base, "best_fit", capacity).digest() for capacity in (9, 16)}
    assert len(digests) == 6
