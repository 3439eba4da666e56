"""Held-out conversations as questions with the answers they should get."""

from collections.abc import Iterable
from dataclasses import dataclass

from mlx_yoda.data.columns import Conversation


@dataclass(frozen=True)
class Question:
    """A held-out conversation that ends with the assistant's turn.

    Attributes:
        messages: the turns before it, as {"role", "content"}.
        reference: what the assistant should say.
    """

    messages: tuple[dict[str, str], ...]
    reference: str

    @property
    def prompt(self) -> str:
        """The user's last words."""
        return self.messages[-1]["content"]


def questions(held_out: Iterable[Conversation]) -> list[Question]:
    """The conversations that end with an answer, taken apart into question and answer."""
    return [question for question in map(question_of, held_out) if question]


def question_of(conversation: Conversation) -> Question | None:
    """One conversation, if it ends with an answer."""
    messages = conversation.messages
    if not messages or len(messages) < 2 or messages[-1].role != "assistant":
        return None
    before = tuple({"role": m.role, "content": m.content} for m in messages[:-1])
    return Question(before, messages[-1].content)
