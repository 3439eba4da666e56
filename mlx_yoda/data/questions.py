"""Held-out conversations as questions with the answers they should get."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mlx_yoda.data.columns import Conversation
from mlx_yoda.data.messages import Message, Tools
from mlx_yoda.data.template import TemplatedChat, without_end_tokens
from mlx_yoda.data.turns import answer_tokens, is_weightless


@dataclass(frozen=True)
class Question:
    """A held-out conversation that ends with the assistant's turn.

    Attributes:
        messages: the turns before it.
        reference: token ids of what the model is taught to say, up to where it ends its turn.
            They have what the chat template adds to the words of the row, such as an empty
            <think></think>, and are to be decoded as answers are.
        tools: what the assistant may call, where the chat template shows it.
    """

    messages: tuple[Message, ...]
    reference: tuple[int, ...]
    tools: Tools | None = None

    @property
    def prompt(self) -> str:
        """The last words before the answer."""
        return next(m["content"] for m in reversed(self.messages) if m.get("content") is not None)


def questions(held_out: Iterable[Conversation], tokenizer: Any) -> list[Question]:
    """The conversations that end with an answer, taken apart into question and answer.

    Raises:
        UserError: the chat template cannot render one of them.
    """
    found = (question_of(conversation, tokenizer) for conversation in held_out)
    return [question for question in found if question]


def question_of(conversation: Conversation, tokenizer: Any) -> Question | None:
    """One conversation, if it ends with an answer that is worth giving.

    Raises:
        UserError: the chat template cannot render it.
    """
    messages = conversation.messages
    if not messages or len(messages) < 2 or messages[-1]["role"] != "assistant":
        return None
    if is_weightless(messages[-1]):
        return None
    chat, _ = without_end_tokens(TemplatedChat(conversation, tokenizer))
    tools = None if "tools" in chat.left_out() else conversation.tools
    return Question(chat.messages[:-1], tuple(answer_tokens(chat).tolist()), tools)
