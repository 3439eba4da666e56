"""One value from YAML to the type that its field declares, or a sentence that says why not."""

import math
import types
from typing import Any, Literal, Union, get_args, get_origin

from mlx_yoda.errors import UserError


class _Mismatch(Exception):
    """The value is not of the type; another member of a union may fit."""


def convert(value: Any, kind: Any, key: str, place: str) -> Any:
    """Fit a value to a type.

    Whole numbers become floats where floats are wanted, and text such as `1e-5`, which YAML 1.1
    reads as a string, becomes a number; nothing else is bent.

    Args:
        value: as YAML has it.
        kind: the field's type annotation.
        key: `section.key`, for the message.
        place: where it was written, for the message.

    Raises:
        UserError: it does not fit.
    """
    if key == "data.packing" and isinstance(value, bool):  # as the notebook's SFTConfig had it
        value = "concat" if value else "none"
    try:
        return _fit(value, kind)
    except _Mismatch:
        raise UserError(f"{place}: {key} must be {describe(kind)}, not {_short(value)}.") from None


def describe(kind: Any) -> str:
    """A type in a person's words: `a whole number`, `one of none, concat, best_fit`."""
    if kind in _WORDS:
        return _WORDS[kind]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        options = [str(option) for option in arguments]
        return options[0] if len(options) == 1 else f"one of {', '.join(options)}"
    if origin is list:
        return f"a list of {_PLURALS[arguments[0]]}"
    if origin is dict:
        return f"a mapping from names to {_PLURALS[arguments[1]]}"
    return " or ".join(describe(member) for member in arguments)


_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "null",
}
_PLURALS = {str: "names", int: "whole numbers", float: "numbers"}


def _fit(value: Any, kind: Any) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _fit_first(value, arguments)
    if origin is Literal:
        if any(value == option and type(value) is type(option) for option in arguments):
            return value
    elif origin is list:
        if isinstance(value, list):
            return [_fit(item, arguments[0]) for item in value]
    elif origin is dict:
        if isinstance(value, dict):
            return {_fit(k, arguments[0]): _fit(v, arguments[1]) for k, v in value.items()}
    elif kind is float:
        return _number(value)
    elif type(value) is kind:  # not isinstance: true is no whole number
        return value
    raise _Mismatch


def _fit_first(value: Any, members: tuple[Any, ...]) -> Any:
    for member in members:
        try:
            return _fit(value, member)
        except _Mismatch:
            continue
    raise _Mismatch


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _Mismatch
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise _Mismatch from None
    if not math.isfinite(number):
        raise _Mismatch
    return number


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
