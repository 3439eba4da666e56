"""Messages and tools as Transformers' chat templates take them, checked.

A message is an object with a role, a content and whatever else a chat template may read, such as
`tool_calls`, `reasoning_content` or `name`. All of it is handed to the template.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mlx_yoda.data.rows import kind, shown
from mlx_yoda.errors import UserError

Message = Mapping[str, Any]
Tools = tuple[Mapping[str, Any], ...]

ROLES = ("system", "user", "assistant", "tool")
_MOST_MESSAGES = 1_000  # finding the assistant's turns takes their number squared


def read_messages(value: object, where: str) -> tuple[Message, ...]:
    """Check a list of messages.

    As in Transformers, keys whose value is null count as missing. A list of text parts becomes
    their text, and arguments of tool calls that are JSON text become the object that it spells,
    which is what templates expect.

    Args:
        value: what should be the list.
        where: its name, for errors.

    Raises:
        UserError: it is not such a list; the error says where.
    """
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


def read_tools(value: object, where: str) -> Tools | None:
    """Check the tools that a model may call: a list of JSON schemas, or that list as JSON text.

    Raises:
        UserError: it is neither.
    """
    if isinstance(value, str):
        value = _parsed(value, where)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(tool, Mapping) for tool in value):
        raise UserError(f"{where} must be a list of tools, each an object, not {kind(value)}")
    _check_texts(value, where)
    return tuple(value)


def texts(value: object) -> Iterator[str]:
    """Every text within lists and objects, their keys aside."""
    return (text for text, is_key in _walk(value) if not is_key)


def keys(value: object) -> Iterator[str]:
    """Every key of the objects within a value."""
    return (text for text, is_key in _walk(value) if is_key)


def has_json_arguments(messages: object) -> bool:
    """Whether messages, before they are read, have tool calls with arguments as JSON text."""
    calls = [
        call.get("function") or call
        for message in (messages if isinstance(messages, list) else [])
        if isinstance(message, Mapping) and isinstance(message.get("tool_calls"), list)
        for call in message["tool_calls"]
        if isinstance(call, Mapping)
    ]
    return any(isinstance(f, Mapping) and isinstance(f.get("arguments"), str) for f in calls)


def read_text(value: object, where: str) -> str:
    """Check that a value is text that can be encoded.

    Raises:
        UserError: it is not.
    """
    if not isinstance(value, str):
        raise UserError(f"{where} must be text, not {kind(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair
        raise UserError(f"{where} holds half of a surrogate pair, which is no character") from None
    if "\0" in value:
        raise UserError(f"{where} holds a NUL character, which no text has; take it out")
    return value


def _message(value: object, where: str) -> Message:
    if isinstance(value, Mapping) and {"from", "value"} <= value.keys():
        raise UserError(
            f"{where} has the keys 'from' and 'value', which is ShareGPT's form; write role for "
            "from (human is user, gpt is assistant) and content for value"
        )
    given = {k: v for k, v in value.items() if v is not None} if isinstance(value, Mapping) else {}
    speaks = "content" in given or (given.get("role") == "assistant" and given.get("tool_calls"))
    if "role" not in given or not speaks:
        raise UserError(_incomplete(value, where))
    if given["role"] not in ROLES:
        raise UserError(
            f"{where} has the role {shown(given['role'])}; the roles are {', '.join(ROLES)}"
        )
    if "content" in given:
        given["content"] = _content(given["content"], f"{where}.content")
    if "tool_calls" in given:
        given["tool_calls"] = _tool_calls(given["tool_calls"], f"{where}.tool_calls")
    if given.get("weight", 1) not in (0, 1):
        raise UserError(f"{where}.weight must be 0 or 1, not {shown(given['weight'])}")
    _check_texts(given, where)
    return given


def _incomplete(value: object, where: str) -> str:
    """What to say of something that is no message."""
    if not isinstance(value, Mapping):
        return f"{where} must be an object with a role and a content, not {kind(value)}"
    missing = [key for key in ("role", "content") if value.get(key) is None]
    if missing == ["content"] and "content" in value:
        return f"{where}.content must be text, not null"
    return f"{where} has no {' and no '.join(missing)}; a message is an object with both"


def _content(value: object, where: str) -> str:
    """Text, or the text of a list of text parts, in OpenAI's form."""
    if not isinstance(value, list):
        return read_text(value, where)
    for i, part in enumerate(value):
        if not isinstance(part, Mapping) or part.get("type", "text") != "text":
            what = shown(part.get("type")) if isinstance(part, Mapping) else kind(part)
            raise UserError(f"{where}[{i}] is {what}; mlx-yoda reads parts of type 'text' only")
    return "".join(
        read_text(part.get("text"), f"{where}[{i}].text") for i, part in enumerate(value)
    )


def _tool_calls(value: object, where: str) -> list[Message]:
    if not isinstance(value, list) or not all(isinstance(call, Mapping) for call in value):
        raise UserError(f"{where} must be a list of objects, not {kind(value)}")
    return [_tool_call(call, f"{where}[{i}]") for i, call in enumerate(value)]


def _tool_call(call: Message, where: str) -> Message:
    """The call with its arguments as an object; OpenAI's form has both in a `function`."""
    function = call.get("function")
    if isinstance(function, Mapping):
        return {**call, "function": _tool_call(function, f"{where}.function")}
    if not isinstance(call.get("arguments"), str):
        return call
    return {**call, "arguments": _parsed(call["arguments"] or "{}", f"{where}.arguments")}


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise UserError(f"{where} is text that is not JSON") from None


def _check_texts(value: object, where: str) -> None:
    for text, _ in _walk(value):
        read_text(text, where)


def _walk(value: object) -> Iterator[tuple[str, bool]]:
    """Every text, and whether it is a key; not by recursion, for data may be nested deeply."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case str(text):
                yield text, False
            case Mapping() as found:
                yield from ((str(key), True) for key in found)
                waiting += found.values()
            case list() | tuple() as found:
                waiting += found
