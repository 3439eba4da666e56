"""Which columns hold what: rows become conversations, or plain texts."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from mlx_yoda.config.schema import DataConfig
from mlx_yoda.data.messages import (
    Message,
    Tools,
    has_json_arguments,
    read_messages,
    read_text,
    read_tools,
    texts,
)
from mlx_yoda.data.remarks import Kind, Remark
from mlx_yoda.data.rows import Row, shown
from mlx_yoda.data.streams import columns_of
from mlx_yoda.errors import UserError

_PAIRS = (  # recognised where the configuration names no column, best first
    ("prompt", "completion"),
    ("sentence", "translation_extra"),
    ("sentence", "translation"),
)
_LONGEST = 4_000_000  # characters of a row: about a million tokens, which take 3 seconds to find
_TOOLS = "tools"  # the column that is read beside messages, or beside prompt and completion


@dataclass(frozen=True)
class Conversation:
    """A chat or a plain text.

    Attributes:
        messages: the turns, or None if it is plain text.
        text: the plain text, or None if it is a chat.
        place: where its row is, for messages to the user.
        context: how many of the first messages are a prompt, which carries no loss even if
            the assistant speaks in it.
        tools: the JSON schemas of what the assistant may call, or None.
        remarks: what the user should know of how its row was read.
    """

    messages: tuple[Message, ...] | None
    text: str | None
    place: str
    context: int = 0
    tools: Tools | None = None
    remarks: tuple[Remark, ...] = ()


# What reads a row, and the columns it is to read.
_Reader = tuple[Callable[..., Conversation], tuple[str, ...]]


def conversations(rows: Collection[Row], config: DataConfig) -> list[Conversation]:
    """`read_conversations`, all of them at once."""
    return list(read_conversations(rows, config))


def read_conversations(rows: Collection[Row], config: DataConfig) -> Iterator[Conversation]:
    """Read each row by the columns that the configuration names, or that are recognised.

    Recognised are, in this order: messages; prompt with completion; sentence with
    translation_extra or translation; text. Prompt and completion are text, or lists of
    messages (TRL's conversational form). A column `tools` goes with both.

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
    used = {*names, _TOOLS} if read is not _plain else set(names)
    for row in rows:
        given = [name for name, value in row.values.items() if value not in (None, "", [])]
        unused = (name for name in given if name not in used)
        remarks = (Remark(Kind.UNUSED, name) for name in unused)
        conversation = read(row, *names)
        yield _bounded(replace(conversation, remarks=(*conversation.remarks, *remarks)))


def _bounded(conversation: Conversation) -> Conversation:
    """Refuse what no model could read, before hours are spent on finding out."""
    spoken = texts([conversation.tools, *map(_spoken, conversation.messages or ())])
    length = len(conversation.text or "") + sum(map(len, spoken))
    if length > _LONGEST:
        raise UserError(
            f"{conversation.place} has {length:,} characters, more than {_LONGEST:,}; split it or "
            "drop it"
        )
    return conversation


def _spoken(message: Message) -> list[object]:
    return [value for key, value in message.items() if key != "role"]


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
    text = read_text(row.values.get(column), f"{row.place}: {column}")
    return Conversation(None, text, row.place)


def _chat(row: Row, column: str) -> Conversation:
    return _conversation(row, read_messages(row.values.get(column), f"{row.place}: {column}"))


def _pair(row: Row, prompt: str, completion: str) -> Conversation:
    asked = _turns(row, prompt, role="user")
    answered = _turns(row, completion, role="assistant")
    return _conversation(row, asked + answered, context=len(asked))


def _conversation(row: Row, messages: tuple[Message, ...], context: int = 0) -> Conversation:
    """A chat with the tools of its row."""
    tools = read_tools(row.values.get(_TOOLS), f"{row.place}: {_TOOLS}")
    parsed = any(map(has_json_arguments, row.values.values()))
    remarks = (Remark(Kind.ARGUMENTS),) if parsed else ()
    return Conversation(messages, None, row.place, context, tools, remarks)


def _turns(row: Row, column: str, role: str) -> tuple[Message, ...]:
    """One message from text, or the messages of a list."""
    value, where = row.values.get(column), f"{row.place}: {column}"
    if isinstance(value, list):
        return read_messages(value, where)
    return ({"role": role, "content": read_text(value, where)},)


def _list(columns: Sequence[str]) -> str:
    more = f" and {len(columns) - 20:,} more" if len(columns) > 20 else ""
    return ", ".join(map(shown, columns[:20])) + more or "none"
