"""Which columns hold what: rows become conversations, or plain texts."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mlx_yoda.config.schema import DataConfig
from mlx_yoda.data.rows import Row, kind, shown
from mlx_yoda.data.streams import columns_of
from mlx_yoda.errors import UserError

_PAIRS = (  # recognised where the configuration names no column, best first
    ("prompt", "completion"),
    ("sentence", "translation_extra"),
    ("sentence", "translation"),
)
_LONGEST = 4_000_000  # characters of a row: about a million tokens, which take 3 seconds to find
_MOST_MESSAGES = 1_000  # finding the assistant's turns takes their number squared
_ROLES = ("system", "user", "assistant")


class Message(NamedTuple):
    """One turn of a chat."""

    role: str
    content: str


@dataclass(frozen=True)
class Conversation:
    """A chat or a plain text.

    Attributes:
        messages: the turns, or None if it is plain text.
        text: the plain text, or None if it is a chat.
        place: where its row is, for messages to the user.
        context: how many of the first messages are a prompt, which carries no loss even if
            the assistant speaks in it.
    """

    messages: tuple[Message, ...] | None
    text: str | None
    place: str
    context: int = 0


# What reads a row, and the columns it is to read.
_Reader = tuple[Callable[..., Conversation], tuple[str, ...]]


def conversations(rows: Collection[Row], config: DataConfig) -> list[Conversation]:
    """`read_conversations`, all of them at once."""
    return list(read_conversations(rows, config))


def read_conversations(rows: Collection[Row], config: DataConfig) -> Iterator[Conversation]:
    """Read each row by the columns that the configuration names, or that are recognised.

    Recognised are, in this order: messages; prompt with completion; sentence with
    translation_extra or translation; text. Prompt and completion are text, or lists of
    messages (TRL's conversational form).

    Raises:
        UserError: a column is missing, or a value is not what its column should hold.
    """
    columns = columns_of(rows)
    place = next((row.place for row in rows), None)
    if place is None:
        return
    _check_names(columns, config, place)
    reader = _reader(columns, config)
    if reader is None:
        raise UserError(
            f"{place}: no prompt with completion, messages or text is recognised in the "
            f"columns {_list(columns)}; name data.prompt_column and data.completion_column, "
            "data.messages_column or data.text_column"
        )
    read, names = reader
    for row in rows:
        yield _bounded(read(row, *names))


def _bounded(conversation: Conversation) -> Conversation:
    """Refuse what no model could read, before hours are spent on finding out."""
    spoken = (message.content for message in conversation.messages or ())
    length = len(conversation.text or "") + sum(map(len, spoken))
    if length > _LONGEST:
        raise UserError(
            f"{conversation.place} has {length:,} characters, more than {_LONGEST:,}; split it or "
            "drop it"
        )
    return conversation


def _check_names(columns: Sequence[str], config: DataConfig, place: str) -> None:
    """Whether the columns that the configuration names are there, and of one kind."""
    pair = {"prompt_column": config.prompt_column, "completion_column": config.completion_column}
    messages = {"messages_column": config.messages_column}
    text = {"text_column": config.text_column}
    for key, name in (pair | messages | text).items():
        if name is not None and name not in columns:
            raise UserError(f"{place}: data.{key} is '{name}'; the columns are {_list(columns)}")
    if sum(any(kind.values()) for kind in (pair, messages, text)) > 1:
        raise UserError(
            "data.messages_column, data.text_column and the pair of data.prompt_column and "
            "data.completion_column exclude each other; name one of the three"
        )


def _reader(columns: Sequence[str], config: DataConfig) -> _Reader | None:
    if config.messages_column:
        return _chat, (config.messages_column,)
    if config.text_column:
        return _plain, (config.text_column,)
    named = config.prompt_column or config.completion_column
    if "messages" in columns and not named:
        return _chat, ("messages",)
    for prompt, completion in _PAIRS:
        pair = config.prompt_column or prompt, config.completion_column or completion
        if set(pair) <= set(columns):
            return _pair, pair
    return (_plain, ("text",)) if "text" in columns and not named else None


def _plain(row: Row, column: str) -> Conversation:
    return Conversation(None, _text(row.values.get(column), f"{row.place}: {column}"), row.place)


def _chat(row: Row, column: str) -> Conversation:
    value = row.values.get(column)
    return Conversation(_messages(value, f"{row.place}: {column}"), None, row.place)


def _pair(row: Row, prompt: str, completion: str) -> Conversation:
    asked = _turns(row, prompt, role="user")
    answered = _turns(row, completion, role="assistant")
    return Conversation(asked + answered, None, row.place, context=len(asked))


def _turns(row: Row, column: str, role: str) -> tuple[Message, ...]:
    """One message from text, or the messages of a list."""
    value, where = row.values.get(column), f"{row.place}: {column}"
    if isinstance(value, list):
        return _messages(value, where)
    return (Message(role, _text(value, where)),)


def _messages(value: object, where: str) -> tuple[Message, ...]:
    if not isinstance(value, list):
        raise UserError(f"{where} must be a list of messages, not {kind(value)}")
    if not value:
        raise UserError(f"{where} is a list without messages")
    if len(value) > _MOST_MESSAGES:
        raise UserError(
            f"{where} has {len(value):,} messages, more than {_MOST_MESSAGES:,}; split the row or "
            "drop it"
        )
    return tuple(_message(item, f"{where}[{i}]") for i, item in enumerate(value))


def _message(value: object, where: str) -> Message:
    if not isinstance(value, Mapping) or not {"role", "content"} <= value.keys():
        raise UserError(f"{where} must be an object with a role and a content, not {kind(value)}")
    if value.get("tool_calls"):
        raise UserError(f"{where} has tool_calls, which mlx-yoda does not train on; drop the row")
    role = value["role"]
    if role not in _ROLES:
        raise UserError(f"{where} has the role {shown(role)}; the roles are {', '.join(_ROLES)}")
    return Message(role, _text(value["content"], f"{where}.content"))


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where} must be text, not {kind(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair
        raise UserError(f"{where} holds half of a surrogate pair, which is no character") from None
    if "\0" in value:
        raise UserError(f"{where} holds a NUL character, which no text has; take it out")
    return value


def _list(columns: Sequence[str]) -> str:
    more = f" and {len(columns) - 20:,} more" if len(columns) > 20 else ""
    return ", ".join(map(shown, columns[:20])) + more or "none"
