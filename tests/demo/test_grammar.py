"""The grammar: every sentence in two orders, a function of the seed alone."""

from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_yoda.demo.grammar import Sentence, pairs, sentences, words


@pytest.mark.parametrize(
    ("sentence", "plain", "yoda"),
    [
        (
            Sentence("you", "must", "find the old map"),
            "You must find the old map.",
            "Find the old map, you must.",
        ),
        (Sentence("I", "cannot", "mend it"), "I cannot mend it.", "Mend it, I cannot."),
        (
            Sentence("my sister", "is", "very brave", murmur=True),
            "My sister is very brave.",
            "Very brave, my sister is. Yes, hrrrm.",
        ),
    ],
)
def test_orders(sentence, plain, yoda):
    assert (sentence.plain, sentence.yoda) == (plain, yoda)


@given(st.integers(0, 2**32))
def test_function_of_the_seed(seed):
    assert pairs(seed, 50) == pairs(seed, 50)
    assert pairs(seed, 50) != pairs(seed + 1, 50)
    assert pairs(seed, 50)[:20] == pairs(seed, 20)


def test_distinct_and_many():
    rows = pairs(0, 50_000)
    assert len({plain for plain, _ in rows}) == len(rows)


def test_order_always_changes_and_words_never_do():
    for sentence in islice(sentences(3), 2000):
        assert sentence.plain != sentence.yoda
        without_murmur = sentence.yoda.removesuffix(" Yes, hrrrm.")
        assert sentence.murmur == (without_murmur != sentence.yoda)
        assert sorted(_bare(sentence.plain)) == sorted(_bare(without_murmur))


def test_articles_agree():
    for plain, _ in pairs(5, 5000):
        for article, word in pairwise(_bare(plain)):
            if article in ("a", "an"):
                assert (article == "an") == (word[0] in "aeiou"), plain


def test_words_are_the_words_of_the_sentences():
    spoken = {word for plain, _ in pairs(1, 20_000) for word in _bare(plain)}
    assert spoken == {word.lower() for word in words()}


def _bare(sentence: str) -> list[str]:
    return sentence.lower().replace(",", "").replace(".", "").split()
