"""Values by the types of the schema: what a file or an option says becomes what a field holds.

A plain scalar of YAML is read by its field's type, not by its looks: `1e-5` is a number where a
number is wanted, and `no` is the word where a word is (YAML 1.1 makes text of the one and a truth
value of the other).
"""

import math
import re
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

_NULLS = ("null", "Null", "NULL", "~", "")
_TRUTHS = {
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False
}  # fmt: skip
_WHOLE = re.compile(r"[-+]?[0-9]+")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


class Plain(str):
    """A scalar as it was written without quotes, which may mean a number, a truth value or null."""


class Mismatch(ValueError):
    """A value is not of the type wanted."""


def convert(value: Any, annotation: Any) -> Any:
    """Make a value the type that a field declares.

    Args:
        value: a Python value, or `Plain` text; lists and dicts may hold either.
        annotation: str, int, float, bool, None, Literal, list[…], dict[str, …] or a union.

    Raises:
        Mismatch: it is none of that type.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return _first(value, sorted(arguments, key=lambda kind: kind is str))
    if origin is Literal:
        if isinstance(value, str) and str(value) in arguments:
            return str(value)
    elif origin is list:
        if isinstance(value, list | tuple):
            return [convert(item, arguments[0]) for item in value]
    elif origin is dict:
        if isinstance(value, dict):
            return {str(name): convert(item, arguments[1]) for name, item in value.items()}
    else:
        return _scalar(value, annotation)
    raise Mismatch


def expected(annotation: Any) -> str:
    """What a type wants, in the words of a message: "a whole number or null"."""
    return _either([word for kind in _alternatives(annotation) for word in _words(kind)])


def shown(value: Any) -> str:
    """A value, cut short, as a message quotes it."""
    if isinstance(value, Plain):
        text = value if value else "null"
    else:
        text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _first(value: Any, annotations: list[Any]) -> Any:
    for annotation in annotations:
        try:
            return convert(value, annotation)
        except Mismatch:
            continue
    raise Mismatch


def _scalar(value: Any, kind: type) -> Any:
    if isinstance(value, Plain):
        value = _read(value, kind)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            raise Mismatch from None
    if type(value) is not kind:
        raise Mismatch
    if isinstance(value, float) and not math.isfinite(value):
        raise Mismatch
    return value


def _read(text: Plain, kind: type) -> Any:
    """Read plain text as a type; what cannot be is refused."""
    if kind is NoneType and text in _NULLS:
        return None
    if kind is bool and text in _TRUTHS:
        return _TRUTHS[text]
    if kind is int and _WHOLE.fullmatch(text) and len(text) < 100:
        return int(text)
    if kind is float and _NUMBER.fullmatch(text):
        return float(text)
    if kind is str and text not in _NULLS:
        return str(text)
    raise Mismatch


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    union = get_origin(annotation) in (Union, UnionType)
    return get_args(annotation) if union else (annotation,)


def _words(kind: Any) -> list[str]:
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    if get_origin(kind) is list:
        return [f"a list of {_PLURALS[get_args(kind)[0]]}"]
    if get_origin(kind) is dict:
        return [f"a mapping from names to {_PLURALS[get_args(kind)[1]]}"]
    return _SINGULARS[kind]


_SINGULARS = {
    str: ["text"],
    int: ["a whole number"],
    float: ["a finite number"],
    bool: ["true", "false"],
    NoneType: ["null"],
}
_PLURALS = {str: "names", int: "whole numbers", float: "numbers"}


def _either(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
