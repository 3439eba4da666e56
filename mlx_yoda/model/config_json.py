"""A model's config.json: read as an object, and its numbers held against what a model can have."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlx_yoda.errors import UserError, first_line

CONFIG_FILE = "config.json"
_NESTED = ("text_config",)  # where image-text models keep what is said here
_SHOWN = 40  # characters of a value that a message shows


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a model folder.

    Raises:
        UserError: it is not there, no JSON, no object, or a pointer to a file of Git LFS.
    """
    try:
        text = path.read_text(encoding="utf-8")
        check_not_pointer(path, text)
        content = json.loads(text)
    except FileNotFoundError:
        raise UserError(f"{path.parent} is no model folder: it has no {path.name}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {first_line(error)}.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a JSON object.")
    return content


def read_config(folder: Path) -> dict[str, Any]:
    """What config.json says, as it is.

    Raises:
        UserError: as `read_json`, or it says something that no model can have.
    """
    path = folder / CONFIG_FILE
    config = read_json(path)
    if not isinstance(config.get("model_type"), str):
        raise UserError(f"{path} names no model_type: is it a model's?")
    _check(config, path)
    return config


def check_not_pointer(path: Path, text: str) -> None:
    """Tell a file from the three lines that Git LFS leaves in its place.

    Raises:
        UserError: it is a pointer.
    """
    if text.startswith("version https://git-lfs.github.com/spec/"):
        raise UserError(
            f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` in "
            f"{path.parent}, or download the model with `hf download`."
        )


def _count(most: int) -> tuple[str, Callable[[Any], bool]]:
    def right(value: Any) -> bool:
        return type(value) is int and 1 <= value <= most

    return f"a whole number from 1 to {most:,}", right


def _counts(most: int) -> tuple[str, Callable[[Any], bool]]:
    """The same, or one for each layer, as some families have it."""
    wanted, right = _count(most)
    return (
        wanted,
        lambda value: (
            bool(value) and all(map(right, value)) if isinstance(value, list) else right(value)
        ),
    )


def _number(low: float) -> tuple[str, Callable[[Any], bool]]:
    def right(value: Any) -> bool:
        number = type(value) in (int, float)
        return number and low < value < 1e30 and math.isfinite(value)

    return f"a number above {low:g}", right


_BOOL = ("true or false", lambda value: isinstance(value, bool))
_TEXT = ("text", lambda value: isinstance(value, str))
_OBJECT = ("an object", lambda value: isinstance(value, dict))
_NAMES = (
    "a list of names",
    lambda value: isinstance(value, list) and all(isinstance(v, str) for v in value),
)
# The largest published models have 126 layers and a width of 53,248.
_WIDTH, _HEADS, _TOKENS = _count(1 << 20), _counts(4096), _count(1 << 40)

# null is allowed everywhere but in REQUIRED: Transformers then takes a default.
_SCHEMA: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "hidden_size": _WIDTH,
    "intermediate_size": _counts(1 << 20),
    "num_hidden_layers": _count(1024),
    "num_attention_heads": _HEADS,
    "num_key_value_heads": _HEADS,
    "head_dim": _count(1 << 16),
    "vocab_size": _count(1 << 26),
    "max_position_embeddings": _TOKENS,
    "original_max_position_embeddings": _TOKENS,
    "sliding_window": _TOKENS,
    "sliding_window_pattern": _count(1024),
    "max_window_layers": ("a whole number", lambda value: type(value) is int),
    "rms_norm_eps": _number(0),
    "rope_theta": _number(0),
    "rope_local_base_freq": _number(0),
    "query_pre_attn_scalar": _number(0),
    "partial_rotary_factor": _number(0),
    "attn_logit_softcapping": _number(0),
    "final_logit_softcapping": _number(0),
    "tie_word_embeddings": _BOOL,
    "use_sliding_window": _BOOL,
    "attention_bias": _BOOL,
    "mlp_bias": _BOOL,
    "hidden_act": _TEXT,
    "hidden_activation": _TEXT,
    "layer_types": _NAMES,
    "rope_scaling": _OBJECT,
    "rope_parameters": _OBJECT,
    "quantization": _OBJECT,
    "quantization_config": _OBJECT,
    "text_config": _OBJECT,
}
_ROPE: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "rope_type": _TEXT,
    "type": _TEXT,
    "full_attention": _OBJECT,
    "sliding_attention": _OBJECT,
    "original_max_position_embeddings": _TOKENS,
    **{
        key: _number(0)
        for key in (
            *("rope_theta", "factor", "partial_rotary_factor", "attention_factor", "beta_fast"),
            *("beta_slow", "low_freq_factor", "high_freq_factor", "mscale"),
        )
    },
    "mscale_all_dim": _number(-1),
}
_QUANTIZATION = {"bits": _count(8), "group_size": _count(128), "mode": _TEXT}
_OBJECTS = {
    "rope_scaling": _ROPE,
    "rope_parameters": _ROPE,
    "full_attention": _ROPE,
    "sliding_attention": _ROPE,
    "quantization": _QUANTIZATION,
    **dict.fromkeys(_NESTED, _SCHEMA),
}
# Switched off by a key of their own, or by 0 in files of other programs.
_UNUSED = {"sliding_window": "use_sliding_window"}


def _check(
    config: Mapping[str, Any],
    path: Path,
    schema: Mapping[str, tuple[str, Callable[[Any], bool]]] = _SCHEMA,
    within: str = "",
) -> None:
    for key, (wanted, right) in schema.items():
        value = config.get(key)
        if value is None or config.get(_UNUSED.get(key, "")) is False:
            continue
        if not right(value):
            shown = json.dumps(value)
            shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}…"
            raise UserError(f"{path}: {within}{key} must be {wanted}, not {shown}.")
        if key in _OBJECTS:
            _check(value, path, _OBJECTS[key], f"{within}{key}.")
    _check_heads(config, path, within)


def _check_heads(config: Mapping[str, Any], path: Path, within: str) -> None:
    """Queries share keys and values evenly, and share the width where no head_dim is given."""
    width, heads = config.get("hidden_size"), config.get("num_attention_heads")
    shared = config.get("num_key_value_heads")
    if isinstance(heads, list) or isinstance(shared, list):
        return
    if heads and shared and heads % shared:
        raise UserError(
            f"{path}: {within}num_attention_heads {heads} is not a multiple of num_key_value_heads "
            f"{shared}."
        )
    if width and heads and not config.get("head_dim") and width % heads:
        raise UserError(
            f"{path}: {within}hidden_size {width} is not a multiple of num_attention_heads {heads}."
        )
