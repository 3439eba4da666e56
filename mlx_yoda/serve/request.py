"""The body of a POST to /v1/chat/completions, checked."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from mlx_yoda.data.rows import shown
from mlx_yoda.serve.refusal import Refusal

_MOST_STOPS = 4  # as OpenAI has it
_HOTTEST = 2.0
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_SEEDS = 1 << 63  # OpenAI's are signed numbers of 64 bits

_READ = frozenset({
    "model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed",
    "stop", "stream", "stream_options",
})  # fmt: skip
# What does not change the answer: whom it is for, and how OpenAI bills and stores it.
_WITHOUT_EFFECT = frozenset({
    "user", "safety_identifier", "metadata", "store", "service_tier", "prompt_cache_key",
    "prompt_cache_retention",
})  # fmt: skip
# What would change the answer and is not supported: field → values that ask for nothing. OpenAI's
# fields, then those that mlx-lm, vLLM and Ollama add. Any other field is refused.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "top_k": (0, -1),
    "min_p": (0,),
    "repetition_penalty": (1,),
    "xtc_probability": (0,),
}
# A reply of OpenAI's client, sent back as it came, has these without a value.
_NEUTRAL_IN_MESSAGE: dict[str, tuple[Any, ...]] = {
    "refusal": (),
    "annotations": ([],),
    "audio": (),
    "tool_calls": ([],),
    "function_call": (),
    "name": (),
    "reasoning_content": (),
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
    _refuse_unsupported(given, _READ | _WITHOUT_EFFECT, _NEUTRAL)
    model = given.get("model")
    if not isinstance(model, str) or model not in models:
        names = " and ".join(models)
        raise Refusal(
            404,
            f"There is no such model; there are: {names}.",
            param="model",
            code="model_not_found",
        )
    newer = given.get("max_completion_tokens") is not None
    longest = "max_completion_tokens" if newer else "max_tokens"
    return ChatRequest(
        model=model,
        messages=_messages(given.get("messages"), defaults.system),
        max_tokens=_max_tokens(given, longest, defaults.max_tokens),
        temperature=_number(given, "temperature", defaults.temperature, 0.0, _HOTTEST),
        top_p=_number(given, "top_p", defaults.top_p, 1e-6, 1.0),
        seed=_seed(given, defaults.seed),
        stop=_stop(given.get("stop")),
        stream=_flag(given, "stream"),
        include_usage=_include_usage(given),
    )


def _refuse_unsupported(
    given: Mapping[str, Any],
    known: Collection[str],
    neutral: Mapping[str, tuple[Any, ...]],
    place: str = "",
) -> None:
    """Refuse by name what would be ignored; null is what OpenAI's clients send for nothing."""
    for field, value in given.items():
        if field in known or value is None:
            continue
        if field not in neutral:
            _wrong(f"{place}{shown(field)}", "is not a field that is known here; leave it out")
        if not any(
            value == other and _is_flag(value) == _is_flag(other) for other in neutral[field]
        ):
            _wrong(f"{place}{field}", "is not supported here; leave it out")


def _is_flag(value: Any) -> bool:
    """JSON's `true` is not its `1`, which Python takes for equal."""
    return isinstance(value, bool)


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
    _refuse_unsupported(given, ("role", "content"), _NEUTRAL_IN_MESSAGE, f"{place}.")
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
    return "".join(_part(part, f"{place}[{i}]") for i, part in enumerate(given))


def _part(given: Any, place: str) -> str:
    if not isinstance(given, dict) or given.get("type", "text") != "text":
        _wrong(place, "must be a part of type text; others are not supported here")
    _refuse_unsupported(given, ("type", "text"), {}, f"{place}.")
    if not isinstance(given.get("text"), str):
        _wrong(f"{place}.text", "must be text")
    text: str = given["text"]
    return text


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
    if not isinstance(value, int) or isinstance(value, bool) or not -_SEEDS <= value < _SEEDS:
        _wrong("seed", f"must be a whole number from {-_SEEDS} to {_SEEDS - 1}")
    return value % (2 * _SEEDS)  # MLX's are unsigned: each has one of its own


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


def _include_usage(given: Mapping[str, Any]) -> bool:
    options = _mapping(given, "stream_options")
    # Obfuscation pads chunks against listeners on a network; there is none here.
    known = ("include_usage", "include_obfuscation")
    _refuse_unsupported(options, known, {}, "stream_options.")
    return _flag(options, "include_usage")


def _mapping(given: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    value = given.get(field)
    if value is not None and not isinstance(value, dict):
        _wrong(field, "must be an object")
    return value or {}


def _wrong(field: str, what: str) -> NoReturn:
    raise Refusal(400, f"{field} {what}.", param=field)
