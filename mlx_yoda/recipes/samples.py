"""Generated answers to held-out questions, scored."""

from collections.abc import Sequence
from typing import Literal

from mlx_yoda.data.questions import Question
from mlx_yoda.evaluate import score
from mlx_yoda.generation import answer, answer_all, text_of
from mlx_yoda.model.load import Loaded
from mlx_yoda.report.events import Generated, Sample

_SHOWN = 3


def sample(base: Loaded, question: Question, *, max_new_tokens: int) -> Sample:
    """One greedy answer."""
    model, words = base.model, base.tokenizer
    said = answer(model, words, question.messages, max_tokens=max_new_tokens, tools=question.tools)
    return Sample(question.prompt, text_of(words, question.reference), said)


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
        base.model,
        base.tokenizer,
        [question.messages for question in questions],
        tools=[question.tools for question in questions],
        max_tokens=max_new_tokens,
    )
    references = [text_of(base.tokenizer, question.reference) for question in questions]
    scores = score(answers, references)
    shown = tuple(
        Sample(question.prompt, reference, answer)
        for question, reference, answer in zip(
            questions[:_SHOWN], references[:_SHOWN], answers[:_SHOWN], strict=True
        )
    )
    return Generated(when, step, scores.exact_match, scores.chrf, len(questions), shown)
