"""Conversations become token ids, and a mask that says which of them carry loss."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from mlx_yoda.data.columns import Conversation
from mlx_yoda.data.remarks import Kind, Remark
from mlx_yoda.data.template import TemplatedChat, tokenise, without_end_tokens
from mlx_yoda.data.turns import all_tokens, assistant_tokens, is_weightless
from mlx_yoda.errors import UserError


@dataclass(frozen=True)
class Example:
    """The tokens of one conversation.

    Attributes:
        tokens: `(L,)` int32.
        supervised: `(L,)` bool, whether a token is a target; False for the first, which no
            token comes before.
        whole: every token is a target, the first too where something does come before it.
        remarks: what the user should know of how it came about.
    """

    tokens: np.ndarray
    supervised: np.ndarray
    whole: bool
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True)
class Encoded:
    """What `encode` made.

    Attributes:
        examples: one for each conversation, in their order.
        truncated: how many of them were cut.
        longest: tokens of the longest, before it was cut.
        remarks: what there is to say of the conversations, and of how many.
    """

    examples: list[Example]
    truncated: int
    longest: int
    remarks: Counter[Remark]

    @property
    def tokens(self) -> int:
        """Tokens in all."""
        return sum(len(example.tokens) for example in self.examples)

    @property
    def supervised_tokens(self) -> int:
        """Targets in all."""
        return sum(int(example.supervised.sum()) for example in self.examples)


def encode(
    conversations: Sequence[Conversation],
    tokenizer: Any,
    *,
    train_on: Literal["completions", "all"],
    max_length: int | None,
) -> Encoded:
    """Tokenise conversations by the tokenizer's own chat template.

    A plain text gets the special tokens that the tokenizer adds by itself, and an
    end-of-sequence token if it has none; all of it is supervised. A begin-of-sequence token that
    it spells out takes the place of the tokenizer's. What a chat's speakers say is text, even
    where it spells out a control token (see `controls`), but for end tokens after an answer.

    Args:
        conversations: chats and plain texts.
        tokenizer: a Hugging Face tokenizer, or mlx-lm's wrapper around one.
        train_on: `all` supervises a chat's every token; `completions` those that the assistant
            says, with the tokens that end its turn, and after the last turn the end of
            sequence, but none of the prompts and of the tokens that open a turn.
        max_length: longer examples are cut to so many tokens; None cuts none, which is what
            `packing: concat` needs.

    Raises:
        UserError: the template cannot render a conversation or is missing, or nothing
            supervised remains of a row.
    """
    made = list(encode_each(conversations, tokenizer, train_on=train_on, max_length=max_length))
    return Encoded(
        examples=[example for example, _ in made],
        truncated=sum(len(example.tokens) < whole for example, whole in made),
        longest=max((whole for _, whole in made), default=0),
        remarks=Counter(remark for example, _ in made for remark in example.remarks),
    )


def encode_each(
    conversations: Iterable[Conversation],
    tokenizer: Any,
    *,
    train_on: Literal["completions", "all"],
    max_length: int | None,
) -> Iterator[tuple[Example, int]]:
    """As `encode`, one example after the other, each with its tokens before it was cut."""
    for conversation in conversations:
        whole = _encode(conversation, tokenizer, train_on)
        yield _cut(whole, conversation.place, max_length), len(whole.tokens)


def _encode(conversation: Conversation, tokenizer: Any, train_on: str) -> Example:
    if conversation.messages is None:
        tokens = _plain_tokens(conversation.text or "", tokenizer)
        supervised = np.arange(len(tokens)) > 0
        return Example(tokens, supervised, whole=True, remarks=conversation.remarks)
    chat, ends = without_end_tokens(TemplatedChat(conversation, tokenizer))
    whole = train_on == "all"
    tokens, supervised = all_tokens(chat) if whole else assistant_tokens(chat)
    remarks = (*conversation.remarks, *_remarks(chat, ends))
    return Example(tokens, supervised, whole, remarks)


def _plain_tokens(text: str, tokenizer: Any) -> np.ndarray:
    """`(L,)` int32 token ids, that begin and end once, whether or not the text does."""
    tokens = tokenise(text, tokenizer, add_special_tokens=True)
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    if bos is not None and list(tokens[:2]) == [bos, bos]:
        tokens = tokens[1:]
    if eos is not None and list(tokens[-1:]) != [eos]:
        tokens = np.append(tokens, np.int32(eos))
    return tokens


def _remarks(chat: TemplatedChat, ends: Sequence[str]) -> Iterator[Remark]:
    """What to say of a chat and the end tokens that were taken off its answers."""
    yield from (Remark(Kind.END, token) for token in dict.fromkeys(ends))
    yield from (Remark(Kind.SPELT, token) for token in chat.spelt)
    yield from (Remark(Kind.LEFT_OUT, name) for name in sorted(chat.left_out()))
    spoken = [message for message in chat.messages if message["role"] == "assistant"]
    if any(is_weightless(message) for message in spoken):
        yield Remark(Kind.WEIGHT)
    if any(
        not message.get("content", "").strip() and not message.get("tool_calls")
        for message in spoken
    ):
        yield Remark(Kind.EMPTY)


def _cut(example: Example, place: str, max_length: int | None) -> Example:
    if not example.supervised.any():
        raise UserError(
            f"{place}: nothing to learn from, for the assistant says nothing in it that has weight"
        )
    cut = replace(
        example, tokens=example.tokens[:max_length], supervised=example.supervised[:max_length]
    )
    if not cut.supervised.any():
        raise UserError(
            f"{place}: the prompt fills all of the {max_length} tokens to which the row's "
            f"{len(example.tokens)} are cut; raise data.max_length or drop the row"
        )
    return cut
