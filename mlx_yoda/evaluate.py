"""How near generated answers come to their references."""

from collections.abc import Sequence
from dataclasses import dataclass

from sacrebleu.metrics import CHRF


@dataclass(frozen=True)
class Scores:
    """Agreement of answers with references.

    Attributes:
        exact_match: share of answers that equal their reference, 0 to 1, white space at either
            end aside.
        chrf: chrF2 of the whole corpus, 0 to 100 (Popović, WMT 2015), by sacrebleu.
    """

    exact_match: float
    chrf: float


def score(answers: Sequence[str], references: Sequence[str]) -> Scores:
    """Compare each answer with its reference.

    Raises:
        ValueError: there are none, or not as many of the one as of the other.
    """
    if not answers or len(answers) != len(references):
        raise ValueError(f"{len(answers)} answers cannot be scored by {len(references)} references")
    given = [answer.strip() for answer in answers]
    wanted = [reference.strip() for reference in references]
    matches = sum(one == other for one, other in zip(given, wanted, strict=True))
    return Scores(matches / len(given), CHRF().corpus_score(given, [wanted]).score)
