"""The body of a POST to /v1/chat/completions, checked."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from mlx_yoda.serve.refusal import Refusal

_MOST_STOPS = 4  # as OpenAI has it
_HOTTEST = 2.0
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
# What would change the answer and cannot be done: field → values that ask for nothing.
_UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "tools": ([],),
    "functions": ([],),
    "logprobs": (False,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
}


@dataclass(frozen=True)
class Defaults:
    """What a request gets that does not say it, and the most that it may ask for.

    Attributes:
        max_tokens: longest answer, in tokens; the default and the bound.
        temperature, top_p, seed: as `generation.pieces`.
        system: a system message for conversations that have none, or None.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    system: str | None = None


@dataclass(frozen=True)
class ChatRequest:
    """A conversation to go on with.

    Attributes:
        model: which of the server's models.
        messages: the conversation up to and with the user's turn.
        max_tokens, temperature, top_p, seed: as `generation.pieces`.
        stop: texts that the answer ends before.
        stream: whether the answer is sent piece by piece.
        include_usage: whether a stream ends with the count of tokens.
    """

    model: str
    messages: list[dict[str, str]]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool


def parse(body: bytes, models: Sequence[str], defaults: Defaults) -> ChatRequest:
    """Read a request.

    Args:
        body: JSON, in UTF-8.
        models: the names of the models there are.
        defaults: for what it leaves out.

    Raises:
        Refusal: 400 or 404; it says which field is wrong.
    """
    given = _object(body)
    for field, nothing in _UNSUPPORTED.items():
        if given.get(field) is not None and given[field] not in nothing:
            _wrong(field, "is not supported here; leave it out")
    model = given.get("model")
    if not isinstance(model, str) or model not in models:
        names = " and ".join(models)
        raise Refusal(
            404,
            f"There is no such model; there are: {names}.",
            param="model",
            code="model_not_found",
        )
    longest = "max_completion_tokens" if given.get("max_completion_tokens") else "max_tokens"
    return ChatRequest(
        model=model,
        messages=_messages(given.get("messages"), defaults.system),
        max_tokens=_max_tokens(given, longest, defaults.max_tokens),
        temperature=_number(given, "temperature", defaults.temperature, 0.0, _HOTTEST),
        top_p=_number(given, "top_p", defaults.top_p, 1e-6, 1.0),
        seed=_seed(given, defaults.seed),
        stop=_stop(given.get("stop")),
        stream=_flag(given, "stream"),
        include_usage=_flag(_mapping(given, "stream_options"), "include_usage"),
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        given = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise Refusal(400, "The request is no JSON.") from None
    if not isinstance(given, dict):
        raise Refusal(400, "The request must be a JSON object.")
    return given


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _messages(given: Any, system: str | None) -> list[dict[str, str]]:
    if not isinstance(given, list) or not given:
        _wrong("messages", "must be a list of messages")
    messages = [_message(message, f"messages[{i}]") for i, message in enumerate(given)]
    if messages[-1]["role"] != "user":
        _wrong("messages", "must end with the user's turn")
    if system and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    return messages


def _message(given: Any, place: str) -> dict[str, str]:
    if not isinstance(given, dict):
        _wrong(place, "must be an object with role and content")
    role = given.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        _wrong(f"{place}.role", f"must be one of {', '.join(_ROLES)}")
    return {"role": _ROLES[role], "content": _content(given.get("content"), f"{place}.content")}


def _content(given: Any, place: str) -> str:
    """Text, or OpenAI's list of parts if all of them are text."""
    if isinstance(given, str):
        return given
    if not isinstance(given, list):
        _wrong(place, "must be text")
    texts = [part["text"] for part in given if isinstance(part, dict) and "text" in part]
    if len(texts) < len(given) or not all(isinstance(text, str) for text in texts):
        _wrong(place, "may hold parts of type text only")
    return "".join(texts)


def _max_tokens(given: Mapping[str, Any], field: str, most: int) -> int:
    value = given.get(field)
    if value is None:
        return most
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        _wrong(field, "must be a whole number from 1")
    if value > most:
        _wrong(field, f"may be {most} at most; `mlx-yoda serve --max-tokens` sets this bound")
    return value


def _number(given: Mapping[str, Any], field: str, default: float, low: float, high: float) -> float:
    value = given.get(field)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        _wrong(field, f"must be a number from {low:g} to {high:g}")
    return float(value)


def _seed(given: Mapping[str, Any], default: int | None) -> int | None:
    value = given.get("seed")
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 1 << 63:
        _wrong("seed", "must be a whole number of 64 bits")
    return value % (1 << 63)


def _stop(given: Any) -> tuple[str, ...]:
    texts = [given] if isinstance(given, str) else given or []
    if not isinstance(texts, list) or len(texts) > _MOST_STOPS:
        _wrong("stop", f"must be a text, or a list of up to {_MOST_STOPS}")
    if not all(isinstance(text, str) and text for text in texts):
        _wrong("stop", "must hold texts that are not empty")
    return tuple(texts)


def _flag(given: Mapping[str, Any], field: str) -> bool:
    value = given.get(field)
    if value is not None and not isinstance(value, bool):
        _wrong(field, "must be true or false")
    return bool(value)


def _mapping(given: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    value = given.get(field)
    if value is not None and not isinstance(value, dict):
        _wrong(field, "must be an object")
    return value or {}


def _wrong(field: str, what: str) -> NoReturn:
    raise Refusal(400, f"{field} {what}.", param=field)
