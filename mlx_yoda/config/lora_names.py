"""Which modules a LoRA configuration means, decided exactly as PEFT decides it.

The meaning of `target_modules`, `exclude_modules`, `layers_to_transform`, `rank_pattern` and
`alpha_pattern` is part of PEFT's file format: an adapter that names `qkv_proj` must be put on the
same layers here and there. The rules are those of PEFT 0.21 (`check_target_module_exists` in
peft/tuners/tuners_utils.py, `get_pattern_key` in peft/utils/other.py); the tests compare with them.

An adapter's expressions are a stranger's, and some take for ever on a short path. So `re`, which
PEFT uses, says what is an expression, and the library `regex`, which means the same by it and can
stop, matches it for a while.
"""

import math
import re
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import regex

from mlx_yoda.config.schema import LoraConfig
from mlx_yoda.errors import UserError

T = TypeVar("T")

# The first number in the path is the layer's: in "model.layers.1.experts.0.w" that is 1.
_LAYER_INDEX = re.compile(r".*?\.[^.]*\.(\d+)\.")
_BRACE = re.compile(r"\\.|\{(?:\d+(?:,\d*)?|,\d*)\}|\{", re.DOTALL)
_POSIX = re.compile(r"\[:\^?\w+:\]")
# Seconds of processor time, which `regex` counts too: a busy machine is no endless expression.
_PATIENCE = 0.5  # for all the expressions that are held against one path; µs are usual
_LONGEST = 2000  # characters of an expression


def matches_target(path: str, config: LoraConfig, layers_pattern: Sequence[str] = ()) -> bool:
    """Say whether the configuration puts a LoRA layer on the module at `path`.

    A string in `target_modules` or `exclude_modules` is a regular expression over the whole path;
    a list holds whole paths or their last parts. `layers_to_transform` narrows what the last
    parts match, never a whole path.

    Args:
        path: the module's path.
        config: what is targeted.
        layers_pattern: PEFT's key of that name: expressions for what stands before the number
            that `layers_to_transform` means; without any it is the first number in the path.

    Raises:
        UserError: a regular expression is broken or takes too long, or stands beside
            `layers_to_transform`.
    """
    targets, layers = config.target_modules, config.layers_to_transform
    if config.exclude_modules and _named(path, config.exclude_modules, "exclude_modules"):
        return False
    if isinstance(targets, str) and layers is not None:
        raise UserError(
            "lora.layers_to_transform needs lora.target_modules as a list of names; "
            "put the layers into the regular expression instead."
        )
    if not _named(path, targets, "target_modules"):
        return False
    if layers is None or layers == [] or path in targets:
        return True
    chosen = [layers] if isinstance(layers, int) else layers
    index = _layer_index(path, layers_pattern)
    return index is not None and index in chosen


def pattern_value(path: str, pattern: Mapping[str, T], default: T) -> T:
    """Look up a module's own rank or alpha.

    Args:
        path: the module's path.
        pattern: regular expression over the path's last parts → value; the first match counts.
        default: the value where none matches.

    Raises:
        UserError: a regular expression is broken or takes too long.
    """
    end = time.process_time() + _PATIENCE
    for expression, value in pattern.items():
        key = "rank_pattern or alpha_pattern"
        whole = _compile(rf"(.*\.)?({expression})$", expression, key)
        if _found(whole.match, path, expression, key, end):
            return value
    return pattern.get(path, default)


def scale_of(path: str, config: LoraConfig) -> float:
    """What the update of the module at `path` is multiplied by: its alpha / r, or alpha / √r."""
    r = pattern_value(path, config.rank_pattern, config.r)
    alpha = pattern_value(path, config.alpha_pattern, config.lora_alpha)
    return alpha / (math.sqrt(r) if config.use_rslora else r)


def layer_order(path: str) -> list[tuple[int, str]]:
    """Sort key for module paths that puts layer 2 before layer 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in path.split(".")]


def _layer_index(path: str, patterns: Sequence[str]) -> int | None:
    """The number of the layer that a module belongs to."""
    if not patterns:
        found = _LAYER_INDEX.match(path)
        return int(found[1]) if found else None
    end = time.process_time() + _PATIENCE
    for pattern in patterns:
        whole = _compile(rf"(?:^|.*?\.){pattern}\.(?P<idx>\d+)\.", pattern, "layers_pattern")
        if index := _found(whole.match, path, pattern, "layers_pattern", end):
            return int(index["idx"])
    return None


def _named(path: str, names: str | Sequence[str], key: str) -> bool:
    if isinstance(names, str):
        end = time.process_time() + _PATIENCE
        return _found(_compile(names, names, key).fullmatch, path, names, key, end) is not None
    return any(path == name or path.endswith(f".{name}") for name in names)


def _found(match: Callable[..., Any], path: str, written: str, key: str, end: float) -> Any:
    """The match of an expression with a path or None, if that can be told before `end`."""
    try:
        return match(path, timeout=max(end - time.process_time(), 1e-9))
    except TimeoutError:
        raise UserError(
            f"lora.{key}: matching {_short(written)} with {path} takes too long; write it simpler."
        ) from None


@lru_cache(maxsize=1024)
def _compile(expression: str, written: str, key: str) -> "regex.Pattern[str]":
    try:
        if len(expression) > _LONGEST:
            raise ValueError(f"it has {len(expression):,} characters")
        if _POSIX.search(expression):
            raise ValueError("what it has between colons means two things to two programs")
        with warnings.catch_warnings(action="ignore"):  # of what will be read otherwise one day
            re.compile(expression)
            return regex.compile(_BRACE.sub(_escaped, expression))
    except (re.error, regex.error, RecursionError, OverflowError, ValueError) as error:
        raise UserError(
            f"lora.{key}: {_short(written)} is not a regular expression Python can read ({error})."
        ) from None


def _escaped(brace: re.Match[str]) -> str:
    """A brace that `regex` reads as the start of a fuzzy match, and `re` as itself."""
    return rf"\{brace[0]}" if brace[0] == "{" else brace[0]


def _short(expression: str) -> str:
    text = repr(expression)
    return text if len(text) <= 60 else f"{text[:59]}…"
