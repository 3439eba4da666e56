"""Which tokens of a chat the assistant says, found through the chat template alone.

A template that marks them with `{% generation %}` is believed. Of any other, renderings of the
chat's beginnings are compared: the assistant's turn starts where the beginning before it ends,
with the generation prompt, and ends where the beginning after it stops to agree with the whole.
The comparison is between tokens, for tokenizers join and swallow characters at the seams; that
the template renders a beginning as a beginning is checked on the text.
"""

import re
from typing import Any

import numpy as np

from mlx_yoda.data.controls import without_trailing
from mlx_yoda.data.messages import Message
from mlx_yoda.data.template import TemplatedChat, end_ids, holds
from mlx_yoda.errors import UserError

_MARKED = re.compile(r"\{%-?\s*generation\b")


def assistant_tokens(chat: TemplatedChat) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of a chat, and which of them the assistant says.

    Returns:
        tokens: `(L,)` int32.
        supervised: `(L,)` bool: the content of the assistant's turns that are no prompt and have
            no weight 0, with the tokens that end a turn and, after the last one, all that
            follows; never the first token.

    Raises:
        UserError: the template fails, or does not render beginnings of the chat alike.
    """
    turns = range(chat.chat.context, len(chat.messages))
    spoken = [i for i in turns if chat.messages[i]["role"] == "assistant"]
    weightless = [i for i in spoken if is_weightless(chat.messages[i])]
    # Transformers cannot give both the marks and the protection of the words.
    if _is_marked(chat.tokenizer) and not chat.protection:
        tokens, supervised = _marked(chat)
        for turn in weightless:
            supervised[_place(chat, turn, tokens)] = False
    else:
        tokens = chat.tokens()
        supervised = np.zeros(len(tokens), bool)
        for turn in sorted({*spoken}.difference(weightless)):
            supervised[_place(chat, turn, tokens)] = True
    supervised[:1] = False
    return tokens, supervised


def all_tokens(chat: TemplatedChat) -> tuple[np.ndarray, np.ndarray]:
    """As `assistant_tokens`, but supervised is all that has no weight 0, whoever says it.

    Raises:
        UserError: as there, or a turn of weight 0 is not the assistant's.
    """
    tokens = chat.tokens()
    supervised = np.arange(len(tokens)) > 0
    for turn, message in enumerate(chat.messages):
        if is_weightless(message):
            if message["role"] != "assistant":
                raise UserError(
                    f"{chat.chat.place}: weight 0 is for the assistant's turns; take it off the "
                    f"{message['role']}'s, or set data.train_on to completions"
                )
            supervised[_place(chat, turn, tokens)] = False
    return tokens, supervised


def answer_tokens(chat: TemplatedChat) -> np.ndarray:
    """`(A,)` int32: what the assistant is taught to say in the last turn, up to an end token.

    Raises:
        UserError: the template fails.
    """
    prompt = chat.tokens(len(chat.messages) - 1, add_generation_prompt=True)
    whole = chat.tokens()
    answer = whole[_agree(prompt, whole) :]
    ends = np.flatnonzero(np.isin(answer, end_ids(chat.tokenizer)))
    return answer[: ends[0]] if len(ends) else answer


def is_weightless(message: Message) -> bool:
    """Whether a message is to carry no loss, as OpenAI's format has it."""
    return message.get("weight") == 0


def _is_marked(tokenizer: Any) -> bool:
    template = tokenizer.chat_template
    return isinstance(template, str) and bool(_MARKED.search(template)) and tokenizer.is_fast


def _marked(chat: TemplatedChat) -> tuple[np.ndarray, np.ndarray]:
    """By the template's own marks."""
    chat.text()  # for its errors
    # mlx-lm's wrapper, which cannot be called, has no way to ask for the mask.
    tokenizer = chat.tokenizer if callable(chat.tokenizer) else chat.tokenizer._tokenizer
    found = tokenizer.apply_chat_template(
        list(map(dict, chat.messages)),
        return_dict=True,
        return_assistant_tokens_mask=True,
        **chat.tools,
    )
    tokens = np.asarray(found["input_ids"], np.int32)
    supervised = np.asarray(found["assistant_masks"], bool)
    if chat.chat.context:
        prompt = chat.tokens(chat.chat.context, add_generation_prompt=True)
        supervised[: _agree(prompt, tokens)] = False
    return tokens, supervised


def _place(chat: TemplatedChat, turn: int, tokens: np.ndarray) -> slice:
    """Which of the chat's tokens the assistant says in a turn, by comparing its beginnings."""
    if turn == 0:
        raise UserError(
            f"{chat.chat.place}: the assistant has the first turn; begin with the user's"
        )
    last = turn == len(chat.messages) - 1
    if not _agrees(chat, turn):
        remedy = (
            "drop the turn of weight 0"
            if is_weightless(chat.messages[turn])
            else "set data.train_on to all, or mark them in the template with {% generation %}"
        )
        raise UserError(
            f"{chat.chat.place}: the model's chat template renders a turn differently once others "
            f"follow, so the assistant's tokens cannot be told; {remedy}"
        )
    start = _agree(chat.tokens(turn, add_generation_prompt=True), tokens)
    return slice(start, len(tokens) if last else _agree(chat.tokens(turn + 1), tokens))


def _agrees(chat: TemplatedChat, turn: int) -> bool:
    """Whether the whole chat goes on from before a turn with what the assistant says in it."""
    before = chat.text(turn, add_generation_prompt=True)
    after, whole = chat.text(turn + 1), chat.text()
    if not after.startswith(before) or not whole.startswith(before):
        return False
    said = _said(after[len(before) :], chat, turn)
    return said is not None and whole[len(before) :].startswith(said)


def _said(after: str, chat: TemplatedChat, turn: int) -> str | None:
    """The beginning of a text that has all that the assistant says in a turn, or None."""
    message = chat.messages[turn]
    content = message.get("content", "").strip()
    if message.keys() <= {"role", "content", "weight"} and content in after:
        return after[: after.find(content) + len(content)]
    if "tool_calls" in message or holds(after, content):  # in the template's own words
        return without_trailing(after, chat.controls)[0].rstrip()
    return None


def _agree(beginning: np.ndarray, whole: np.ndarray) -> int:
    """How many first tokens are the same."""
    length = min(len(beginning), len(whole))
    differ = np.flatnonzero(beginning[:length] != whole[:length])
    return int(differ[0]) if len(differ) else length
