"""Scores of answers."""

import pytest

from mlx_yoda.evaluate import Scores, score


def test_equal_answers_score_full_marks():
    said = ["Strong, you are.", "Go, I must."]
    assert score(said, said) == Scores(1.0, 100.0)


def test_white_space_at_the_ends_does_not_matter_but_all_else_does():
    answers = [" Strong, you are.\n", "strong, you are.", "Strong,  you are."]
    assert score(answers, ["Strong, you are."] * 3).exact_match == pytest.approx(1 / 3)


def test_chrf_is_chrf2_of_the_corpus():
    """By hand: one 1-gram of two matches each way, no longer n-gram does; orders 1 and 2 exist."""
    assert score(["ab"], ["ac"]).chrf == pytest.approx(25.0)
    assert score(["ab"], ["cd"]).chrf == pytest.approx(0.0)


def test_a_nearer_answer_scores_higher():
    wanted = ["Powerful you have become, hmm."]
    near = score(["Powerful you have become."], wanted).chrf
    far = score(["You have become powerful."], wanted).chrf
    assert 100 > near > far > 0


@pytest.mark.parametrize(("answers", "references"), [([], []), (["a"], []), (["a"], ["a", "b"])])
def test_nothing_to_score_is_an_error(answers, references):
    with pytest.raises(ValueError, match="cannot be scored"):
        score(answers, references)
