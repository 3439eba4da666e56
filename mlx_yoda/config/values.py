"""Values by the types of the schema: what a file or an option says becomes what a field holds.

A plain scalar of YAML is read by its field's type, not by its looks: `1e-5` is a number where a
number is wanted, and `no` is the word where a word is (YAML 1.1 makes text of the one and a truth
value of the other).
"""

import math
import re
from dataclasses import fields, is_dataclass
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
        annotation: str, int, float, bool, None, Literal, list[…], dict[str, …], a dataclass of
            such, or a union.

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
    elif is_dataclass(annotation):
        return _structure(value, annotation)
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


def structure(annotation: Any) -> Any:
    """The dataclass that a field holds, or None."""
    return next((kind for kind in _alternatives(annotation) if is_dataclass(kind)), None)


def as_mapping(value: Any, cls: type) -> dict[str, Any]:
    """The fields that a value sets: a mapping's own, or of anything else the first that it fits.

    Raises:
        Mismatch: it fits none.
    """
    if isinstance(value, cls):
        return dict(vars(value))
    if isinstance(value, dict):
        return value
    for field in fields(cls):
        try:
            if convert(value, field.type) is not None:
                return {field.name: value}
        except Mismatch:
            continue
    raise Mismatch


def _structure(value: Any, cls: Any) -> Any:
    known = {field.name: field.type for field in fields(cls)}
    given = as_mapping(value, cls)
    if not given.keys() <= known.keys():
        raise Mismatch
    return cls(**{name: convert(item, known[name]) for name, item in given.items()})


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
    if is_dataclass(kind):
        simple = [word for field in fields(kind) for word in _plain_words(field.type)]
        names = ", ".join(field.name for field in fields(kind))
        return [*dict.fromkeys(simple), f"a mapping of {names}"]
    if get_origin(kind) is list:
        return [f"a list of {_PLURALS[get_args(kind)[0]]}"]
    if get_origin(kind) is dict:
        return [f"a mapping from names to {_PLURALS[get_args(kind)[1]]}"]
    return _SINGULARS[kind]


def _plain_words(annotation: Any) -> list[str]:
    kinds = [kind for kind in _alternatives(annotation) if kind is not NoneType]
    return [word for kind in kinds for word in _words(kind)]


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
