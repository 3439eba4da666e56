import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_yoda.data.chat import Example
from mlx_yoda.data.packing import first_fit_decreasing, pack
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
    assert first_fit_decreasing(*case) == slow_first_fit_decreasing(*case)


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
    assert pack([], packing, 8) == []  # type: ignore[arg-type]


def test_an_example_longer_than_a_row_is_refused() -> None:
    with pytest.raises(UserError, match="an example of 9 tokens does not fit into rows of 8"):
        pack(make([3, 9]), "best_fit", 8)
    with pytest.raises(UserError, match="together have 0 tokens"):
        pack([], "concat", 8)


def test_many_examples_are_packed_in_little_time() -> None:
    lengths = np.random.default_rng(0).integers(1, 500, 20_000).tolist()
    assert len(first_fit_decreasing(lengths, 2048)) <= sum(lengths) / 2048 * 1.01
