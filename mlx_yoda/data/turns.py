"""Which tokens of a chat the assistant says, found through the chat template alone.

A template that marks them with `{% generation %}` is believed. Of any other, renderings of the
chat's beginnings are compared: the assistant's turn starts where the beginning before it ends,
with the generation prompt, and ends where the beginning after it stops to agree with the whole.
The comparison is between tokens, for tokenizers join and swallow characters at the seams; that
the template renders a beginning as a beginning is checked on the text.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlx_yoda.data.columns import Conversation, Message
from mlx_yoda.data.controls import protection
from mlx_yoda.errors import UserError, first_line

_MARKED = re.compile(r"\{%-?\s*generation\b")


def assistant_tokens(chat: Conversation, tokenizer: Any) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of a chat, and which of them the assistant says.

    Returns:
        tokens: `(L,)` int32.
        supervised: `(L,)` bool: the content of the assistant's turns that are no prompt, with
            the tokens that end a turn and, after the last one, all that follows; never the
            first token.

    Raises:
        UserError: the template fails, or does not render beginnings of the chat alike.
    """
    options = _protection(chat, tokenizer)
    # Transformers cannot give both the marks and the protection of the words.
    if _is_marked(tokenizer) and not options:
        tokens, supervised = _marked(chat, tokenizer)
    else:
        tokens, supervised = _compared(chat, tokenizer, options)
    supervised[:1] = False
    return tokens, supervised


def chat_tokens(
    chat: Conversation,
    messages: Sequence[Message],
    tokenizer: Any,
    add_generation_prompt: bool = False,
) -> np.ndarray:
    """`(L,)` int32 token ids of the first messages of a chat; only the template controls it.

    Raises:
        UserError: as `render`.
    """
    text = render(chat, messages, tokenizer, add_generation_prompt)
    options = _protection(chat, tokenizer)
    return _encoded(text, chat, messages, tokenizer, options, add_generation_prompt)


def _encoded(
    text: str,
    chat: Conversation,
    messages: Sequence[Message],
    tokenizer: Any,
    options: Mapping[str, bool],
    add_generation_prompt: bool = False,
) -> np.ndarray:
    """The tokens of a text that `render` made of these messages, who may need protection."""
    if not options:
        return tokenise(text, tokenizer)
    return np.asarray(_applied(chat, messages, tokenizer, add_generation_prompt, options), np.int32)


def tokenise(text: str, tokenizer: Any, *, add_special_tokens: bool = False) -> np.ndarray:
    """`(L,)` int32 token ids of a text."""
    return np.asarray(tokenizer.encode(text, add_special_tokens=add_special_tokens), np.int32)


def render(
    chat: Conversation,
    messages: Sequence[Message],
    tokenizer: Any,
    add_generation_prompt: bool = False,
) -> str:
    """The text of the first messages of a chat.

    Raises:
        UserError: the template fails on them, or leaves the words of the user or system out.
    """
    text: str = _applied(chat, messages, tokenizer, add_generation_prompt, {"tokenize": False})
    for message in messages:
        if message.role != "assistant" and message.content.strip() not in text:
            raise _refused(chat, tokenizer, f"it leaves out what the {message.role} says")
    return text


def _protection(chat: Conversation, tokenizer: Any) -> dict[str, bool]:
    """The same for the whole chat and for its beginnings, so that their tokens agree."""
    return protection((message.content for message in chat.messages or ()), tokenizer)


def _applied(
    chat: Conversation,
    messages: Sequence[Message],
    tokenizer: Any,
    add_generation_prompt: bool,
    options: Mapping[str, bool],
) -> Any:
    # A template is a program by the model's author: it may raise anything.
    try:
        return tokenizer.apply_chat_template(
            [message._asdict() for message in messages],
            add_generation_prompt=add_generation_prompt,
            return_dict=False,
            **options,
        )
    except Exception as error:
        raise _refused(chat, tokenizer, first_line(error)) from None


def _refused(chat: Conversation, tokenizer: Any, reason: str) -> UserError:
    if tokenizer.chat_template is None:
        return UserError(
            f"{chat.place}: the model's tokenizer has no chat template; take a model that was "
            "made for chat, or plain text (data.text_column)"
        )
    advice = ""
    if any(message.role == "system" for message in chat.messages or ()):
        advice = "; if it knows no system role, put the system's words into the user's first turn"
    return UserError(f"{chat.place}: the model's chat template refuses the row ({reason}){advice}")


def _is_marked(tokenizer: Any) -> bool:
    template = tokenizer.chat_template
    return isinstance(template, str) and bool(_MARKED.search(template)) and tokenizer.is_fast


def _marked(chat: Conversation, tokenizer: Any) -> tuple[np.ndarray, np.ndarray]:
    """By the template's own marks."""
    messages = chat.messages or ()
    render(chat, messages, tokenizer)  # for its errors
    # mlx-lm's wrapper, which cannot be called, has no way to ask for the mask.
    hugging_face = tokenizer if callable(tokenizer) else tokenizer._tokenizer
    found = hugging_face.apply_chat_template(
        [message._asdict() for message in messages],
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    tokens = np.asarray(found["input_ids"], np.int32)
    supervised = np.asarray(found["assistant_masks"], bool)
    if chat.context:
        prompt = tokenise(_before(chat, chat.context, tokenizer), tokenizer)
        supervised[: _agree(prompt, tokens)] = False
    return tokens, supervised


def _compared(
    chat: Conversation, tokenizer: Any, options: Mapping[str, bool]
) -> tuple[np.ndarray, np.ndarray]:
    """By comparing the chat's beginnings with the whole."""
    messages = chat.messages or ()
    whole = render(chat, messages, tokenizer)
    tokens = _encoded(whole, chat, messages, tokenizer, options)
    supervised = np.zeros(len(tokens), bool)
    for i in range(chat.context, len(messages)):
        if messages[i].role != "assistant":
            continue
        last = i == len(messages) - 1
        before = _before(chat, i, tokenizer)
        after = whole if last else render(chat, messages[: i + 1], tokenizer)
        if not _agrees(before, after, whole, messages[i].content.strip()):
            raise UserError(
                f"{chat.place}: the model's chat template renders a turn differently once others "
                "follow, so the assistant's tokens cannot be told; set data.train_on to all, or "
                "mark them in the template with {% generation %}"
            )
        opened = _encoded(before, chat, messages[:i], tokenizer, options, True)
        end = len(tokens)
        if not last:
            end = _agree(_encoded(after, chat, messages[: i + 1], tokenizer, options), tokens)
        supervised[_agree(opened, tokens) : end] = True
    return tokens, supervised


def _agrees(before: str, after: str, whole: str, content: str) -> bool:
    """Whether whole, as well as after, goes on from before with the content."""
    found = after.find(content, len(before))
    said = after[: found + len(content)]
    return found >= 0 and said.startswith(before) and whole.startswith(said)


def _before(chat: Conversation, turn: int, tokenizer: Any) -> str:
    """The chat up to where the assistant begins to speak in one of its turns."""
    if turn == 0:
        raise UserError(f"{chat.place}: the assistant has the first turn; begin with the user's")
    return render(chat, (chat.messages or ())[:turn], tokenizer, add_generation_prompt=True)


def _agree(beginning: np.ndarray, whole: np.ndarray) -> int:
    """How many first tokens are the same."""
    length = min(len(beginning), len(whole))
    differ = np.flatnonzero(beginning[:length] != whole[:length])
    return int(differ[0]) if len(differ) else length
