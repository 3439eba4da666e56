"""A piece of what a model says."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Piece:
    """A piece of an answer.

    Attributes:
        text: what it adds; may be empty.
        prompt_tokens: tokens of the conversation before the answer.
        tokens: tokens of the answer so far.
        finish_reason: why the answer ends with this piece; None if it goes on.
    """

    text: str
    prompt_tokens: int
    tokens: int
    finish_reason: Literal["stop", "length"] | None
