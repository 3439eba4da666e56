"""PEFT's adapter_config.json: the keys that we write, honour, ignore and refuse."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from mlx_yoda.adapters.safetensors_header import shown
from mlx_yoda.config.schema import LoraConfig
from mlx_yoda.errors import UserError

# Keys that say where an adapter came from, or matter only together with a key refused below.
_IGNORED = {
    "auto_mapping",
    "base_model_name_or_path",
    "ensure_weight_tying",  # a tied head has no module of its own, so none can be adapted
    "eva_config",
    "inference_mode",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "velora_config",  # another backward pass; what is computed stays
}
_MAY_BE_MISSING = (
    "layers_pattern", "lora_dropout", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern"
)  # fmt: skip
# Other ways to initialise change the base's weights too, so A and B alone do not tell the result.
_INITS = (True, False, None, "gaussian", "eva", "orthogonal")
_ALL_LINEAR = "all-linear"  # every linear layer but the head: only the tensors tell which
_LARGEST = float(np.finfo(np.float32).max)


def to_peft(lora: LoraConfig, base_model_name_or_path: str, revision: str | None) -> dict[str, Any]:
    """Say a LoRA configuration in PEFT's keys.

    Only keys that every PEFT since 0.9 knows are written, so that none of them warns;
    `exclude_modules`, which is younger, only where it is used.
    """
    keys = {
        "alpha_pattern": {name: _plain(alpha) for name, alpha in lora.alpha_pattern.items()},
        "auto_mapping": None,
        "base_model_name_or_path": base_model_name_or_path,
        "bias": lora.bias,
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layers_pattern": None,
        "layers_to_transform": lora.layers_to_transform,
        "lora_alpha": _plain(lora.lora_alpha),
        "lora_dropout": lora.lora_dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": lora.r,
        "rank_pattern": dict(lora.rank_pattern),
        "revision": revision,
        "target_modules": _sorted(lora.target_modules),
        "task_type": lora.task_type,
        "use_dora": lora.use_dora,
        "use_rslora": lora.use_rslora,
    }
    if lora.exclude_modules:
        keys["exclude_modules"] = _sorted(lora.exclude_modules)
    return dict(sorted(keys.items()))


def from_peft(keys: Mapping[str, Any], place: str) -> LoraConfig:
    """Read a LoRA configuration from PEFT's keys.

    Args:
        keys: the object in adapter_config.json.
        place: where it is, for the message.

    Raises:
        UserError: a key has a wrong type, or asks for something that would change what the
            adapter computes and that we do not do.
    """
    _refuse(keys, place)
    values: dict[str, Any] = {}
    for key, (kind, right) in _HONOURED.items():
        value = keys.get(key)
        if value is None and key in _MAY_BE_MISSING:
            continue
        if not right(value):
            raise UserError(f"{place}: {key} must be {kind}, not {_short(value)}.")
        values[key] = value
    values.pop("layers_pattern", None)  # `layers_patterns` reads it
    values["lora_dropout"] = values.get("lora_dropout", 0.0)
    return LoraConfig(**values)


def layers_patterns(keys: Mapping[str, Any]) -> list[str]:
    """PEFT's `layers_pattern` as a list; it means something beside `layers_to_transform` alone."""
    if keys.get("layers_to_transform") in (None, []):
        return []
    pattern = keys.get("layers_pattern") or []
    return [pattern] if isinstance(pattern, str) else pattern


def is_all_linear(targets: str | list[str]) -> bool:
    """Whether `target_modules` is PEFT's word for every linear layer but the head."""
    return isinstance(targets, str) and targets.lower() == _ALL_LINEAR


def _refuse(keys: Mapping[str, Any], place: str) -> None:
    if keys.get("peft_type") != "LORA":
        raise UserError(
            f"{place}: peft_type is {_short(keys.get('peft_type'))}, but only LORA adapters can be "
            "used."
        )
    for name in ("base_model_name_or_path", "revision"):
        if not isinstance(keys.get(name), str | None):
            raise UserError(f"{place}: {name} must be text, not {_short(keys[name])}.")
    accepted = {
        "bias": ("none", None),
        "init_lora_weights": _INITS,
        "task_type": ("CAUSAL_LM", None),
    }
    for key, value in keys.items():
        if key in accepted:
            refused = value not in accepted[key]
        else:
            refused = bool(value) and key not in _IGNORED and key not in _HONOURED
        if refused:
            raise UserError(
                f"{place}: {shown(key)} = {_short(value)} changes what the adapter computes in a "
                "way that is not supported here."
            )


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    """Whether float32, in which adapters compute, can hold it; NaN is not below anything."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= _LARGEST


def _is_names(value: Any) -> bool:
    is_list = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return bool(value) and (is_list or isinstance(value, str))


def _is_rank(value: Any) -> bool:
    return _is_int(value) and value > 0


def _is_pattern(value: Any, right: Any) -> bool:
    return isinstance(value, dict) and all(right(entry) for entry in value.values())


_HONOURED = {
    "r": ("a positive whole number", _is_rank),
    "lora_alpha": ("a finite number in float32", _is_number),
    "lora_dropout": ("a number from 0 to below 1", lambda v: _is_number(v) and 0 <= v < 1),
    "use_rslora": ("true or false", lambda v: isinstance(v, bool)),
    "use_dora": ("true or false", lambda v: isinstance(v, bool)),
    "target_modules": ("a list of names or a regular expression", _is_names),
    "exclude_modules": (
        "a list of names, a regular expression or null",
        lambda v: v is None or v == [] or _is_names(v),
    ),
    "layers_to_transform": (
        "a whole number, a list of them or null",
        lambda v: v is None or _is_int(v) or (isinstance(v, list) and all(map(_is_int, v))),
    ),
    "layers_pattern": ("text, a list of texts or null", lambda v: v in ("", []) or _is_names(v)),
    "rank_pattern": ("an object of positive whole numbers", lambda v: _is_pattern(v, _is_rank)),
    "alpha_pattern": (
        "an object of finite numbers in float32",
        lambda v: _is_pattern(v, _is_number),
    ),
}


def _plain(alpha: float) -> int | float:
    """PEFT declares lora_alpha as a whole number; write one where that is exact."""
    return int(alpha) if float(alpha).is_integer() else alpha


def _sorted(names: str | list[str]) -> str | list[str]:
    return names if isinstance(names, str) else sorted(names)


def _short(value: Any) -> str:
    text = re.sub(r"\s+", " ", repr(value))
    return text if len(text) <= 60 else text[:59] + "…"
