"""Generated answers to held-out questions, scored."""

from collections.abc import Sequence
from typing import Literal

from mlx_yoda.data.questions import Question
from mlx_yoda.evaluate import score
from mlx_yoda.generation import answer_all
from mlx_yoda.model.load import Loaded
from mlx_yoda.report.events import Generated, Sample

_SHOWN = 3


def generated(
    base: Loaded,
    questions: Sequence[Question],
    *,
    when: Literal["before", "after"],
    step: int,
    max_new_tokens: int,
) -> Generated:
    """Answer every question greedily and compare with the references."""
    answers = answer_all(
        base.model, base.tokenizer, [q.messages for q in questions], max_tokens=max_new_tokens
    )
    scores = score(answers, [q.reference for q in questions])
    shown = tuple(
        Sample(question.prompt, question.reference, answer)
        for question, answer in list(zip(questions, answers, strict=True))[:_SHOWN]
    )
    return Generated(when, step, scores.exact_match, scores.chrf, len(questions), shown)
