"""A conversation in a tokenizer's chat template, as Transformers applies it.

Training, evaluation and generation all come here, so that none of them leaves words out or lets
a speaker control the model where another does not.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from mlx_yoda.data.columns import Conversation
from mlx_yoda.data.controls import controls, spelt, without_trailing
from mlx_yoda.data.messages import keys, texts
from mlx_yoda.data.time_limit import time_limit
from mlx_yoda.errors import UserError, first_line

_CALLS = ("tool_calls", "function_call")  # what the assistant says besides its content
_SECONDS = 60.0  # of processor time to render one chat; a million turns take a few
_CHECKED = {"role", "content", "weight"}  # otherwise; weight is not for the template


class TemplatedChat:
    """A conversation in a tokenizer's chat template.

    Attributes:
        chat: the conversation.
        messages: its turns.
        tokenizer: a Hugging Face tokenizer, or mlx-lm's wrapper around one.
    """

    def __init__(self, chat: Conversation, tokenizer: Any) -> None:
        self.chat, self.messages, self.tokenizer = chat, chat.messages or (), tokenizer
        self._texts: dict[tuple[int | None, bool], str] = {}

    def text(self, turns: int | None = None, *, add_generation_prompt: bool = False) -> str:
        """The text of the first `turns` messages, of all if None.

        Raises:
            UserError: the template fails on them, or leaves out what anybody but the assistant
                says.
        """
        key = turns, add_generation_prompt
        if key in self._texts:
            return self._texts[key]
        text: str = self._applied(*key, {"tokenize": False})
        for message in self.messages[:turns]:
            if message["role"] != "assistant" and not holds(text, message["content"]):
                raise self.refused(f"it leaves out what the {message['role']} says")
        return self._texts.setdefault(key, text)

    def tokens(
        self, turns: int | None = None, *, add_generation_prompt: bool = False
    ) -> np.ndarray:
        """`(L,)` int32 token ids of the first `turns` messages; only the template controls them.

        Raises:
            UserError: as `text`, or a key's name spells out a control token.
        """
        text = self.text(turns, add_generation_prompt=add_generation_prompt)
        if not self.protection:
            return tokenise(text, self.tokenizer)
        return np.asarray(self._applied(turns, add_generation_prompt, self.protection), np.int32)

    @cached_property
    def controls(self) -> tuple[str, ...]:
        """`controls.controls` of the tokenizer, which takes a while to list them."""
        return controls(self.tokenizer)

    @cached_property
    def spelt(self) -> list[str]:
        """The control tokens that somebody spells out in it.

        Raises:
            UserError: a key's name does, and Transformers protects values only.
        """
        parts = self.messages, self.chat.tools
        if spelt(keys(parts), self.controls):
            raise self.refused("the name of a key in it spells out a control token")
        return spelt(texts(parts), self.controls)

    @property
    def protection(self) -> dict[str, bool]:
        """What `apply_chat_template` must be told so that what is spelt out stays text.

        It is the same for the whole chat and for its beginnings, so that their tokens agree.
        """
        return {"sanitize_control_tokens": True} if self.spelt else {}

    @property
    def tools(self) -> dict[str, Any]:
        """The tools as `apply_chat_template`'s argument; not every template of mlx-lm's has it."""
        return {} if self.chat.tools is None else {"tools": list(self.chat.tools)}

    def left_out(self, *, add_generation_prompt: bool = False) -> set[str]:
        """What the template does not render: keys of messages, and `tools`.

        It is found by rendering the chat without it, which must make a difference.

        Raises:
            UserError: as `text`, or the template leaves out a call of the assistant's.
        """
        whole = self.text(add_generation_prompt=add_generation_prompt)

        def same(**changes: Any) -> bool:
            other = TemplatedChat(replace(self.chat, **changes), self.tokenizer)
            try:
                return other.text(add_generation_prompt=add_generation_prompt) == whole
            except UserError:  # it is missed
                return False

        found = {"tools"} if self.chat.tools and same(tools=None) else set[str]()
        for i, message in enumerate(self.messages):
            if message["role"] == "assistant" and not holds(whole, message.get("content", "")):
                found.add("content")
            for key in filter(message.get, message.keys() - _CHECKED):
                without = {k: v for k, v in message.items() if k != key}
                if same(messages=(*self.messages[:i], without, *self.messages[i + 1 :])):
                    found.add(key)
        if calls := found.intersection(_CALLS):
            raise self.refused(f"it leaves out the assistant's {' and '.join(calls)}")
        return found

    def refused(self, reason: str) -> UserError:
        """What to say if the template cannot render the chat."""
        place = self.chat.place
        if self.tokenizer.chat_template is None:
            return UserError(
                f"{place}: the model's tokenizer has no chat template; take a model that was "
                "made for chat, or plain text (data.text_column)"
            )
        advice = ""
        if any(message["role"] == "system" for message in self.messages):
            advice = (
                "; if it knows no system role, put the system's words into the user's first turn"
            )
        return UserError(f"{place}: the model's chat template refuses it ({reason}){advice}")

    def _applied(
        self, turns: int | None, add_generation_prompt: bool, options: Mapping[str, bool]
    ) -> Any:
        # A template is a program by the model's author: it may raise anything.
        try:
            with time_limit(_SECONDS):
                return self.tokenizer.apply_chat_template(
                    list(map(dict, self.messages[:turns])),
                    add_generation_prompt=add_generation_prompt,
                    return_dict=False,
                    **self.tools,
                    **options,
                )
        except Exception as error:
            bare = any("content" not in message for message in self.messages[:turns])
            reason = "it cannot render tool_calls without content: " if bare else ""
            raise self.refused(f"{reason}{first_line(error)}") from None


def without_end_tokens(chat: TemplatedChat) -> tuple[TemplatedChat, list[str]]:
    """Take end tokens off the ends of the assistant's words, where the template writes its own.

    Many prepare answers so, for a trainer that adds none; as words they would be taught as text.

    Returns:
        The chat, and the tokens that were taken off.

    Raises:
        UserError: as `TemplatedChat.text`.
    """
    messages, taken = list(chat.messages), list[str]()
    for i, message in enumerate(messages):
        content = message.get("content", "")
        if message["role"] == "assistant" and content.rstrip().endswith(chat.controls):
            content, ended = without_trailing(content, _end_tokens(chat, i))
            messages[i] = {**message, "content": content}
            taken += ended
    if not taken:
        return chat, taken
    return TemplatedChat(replace(chat.chat, messages=tuple(messages)), chat.tokenizer), taken


def tokenise(text: str, tokenizer: Any, *, add_special_tokens: bool = False) -> np.ndarray:
    """`(L,)` int32 token ids of a text."""
    return np.asarray(tokenizer.encode(text, add_special_tokens=add_special_tokens), np.int32)


def end_ids(tokenizer: Any) -> list[int]:
    """The tokens that generation ends at; mlx-lm's wrapper may know more than one."""
    ids = getattr(tokenizer, "eos_token_ids", None)
    if not isinstance(ids, set):  # of Transformers' own tokenizers
        ids = {tokenizer.eos_token_id}
    return sorted(ids - {None})


def holds(text: str, words: str) -> bool:
    """Whether a rendered text has these words, as they are or as JSON, white space aside."""
    words = words.strip()
    if words in text:
        return True
    squeezed = _squeezed(text)
    as_json = (json.dumps(words, ensure_ascii=ascii)[1:-1] for ascii in (False, True))
    return any(_squeezed(form) in squeezed for form in (words, *as_json))


def _end_tokens(chat: TemplatedChat, turn: int) -> list[str]:
    """What ends an answer: the model's end tokens, and those that the template writes after it."""
    text, content = chat.text(turn + 1), chat.messages[turn]["content"].strip()
    after = text[text.rfind(content) + len(content) :] if content in text else ""
    eos = {str(chat.tokenizer.convert_ids_to_tokens(i)) for i in end_ids(chat.tokenizer)}
    return [token for token in chat.controls if token in after or token in eos]


def _squeezed(text: str) -> str:
    return "".join(text.split())
