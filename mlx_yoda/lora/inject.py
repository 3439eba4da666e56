"""Choosing the target modules of a model and putting LoRA layers in their place."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import mlx.core as mx
import mlx.nn as nn

from mlx_yoda.config.lora_names import layer_order, matches_target, pattern_value
from mlx_yoda.config.schema import LoraConfig
from mlx_yoda.errors import UserError
from mlx_yoda.lora.dora import DoRALinear
from mlx_yoda.lora.layer import LoRALinear
from mlx_yoda.lora.pissa import PissaLinear

_FUSED = {"q_proj": "qkv_proj", "k_proj": "qkv_proj", "v_proj": "qkv_proj"}
_FUSED |= {"gate_proj": "gate_up_proj", "up_proj": "gate_up_proj"}


def inject(
    model: nn.Module, config: LoraConfig, key: mx.array, paths: Sequence[str] | None = None
) -> dict[str, LoRALinear]:
    """Put a LoRA layer in the place of every linear layer that the configuration targets.

    Args:
        model: a frozen model; its module tree is changed, its weights are not.
        config: which modules, and rank, scale and dropout of each.
        key: PRNG key `(2,)` of the initialisation.
        paths: the linear layers instead, in the model's order; of a stored adapter they are
            those that it has weights for.

    Returns:
        Path → layer, in the model's order.

    Raises:
        UserError: a target matches nothing, or something that is no linear layer.
    """
    paths = target_paths(model, config) if paths is None else paths
    modules = dict(model.named_modules())
    layers: dict[str, LoRALinear] = {}
    make = _kind(config)
    for path, layer_key in zip(paths, mx.random.split(key, len(paths)), strict=True):
        layers[path] = make(
            modules[path],
            r=pattern_value(path, config.rank_pattern, config.r),
            lora_alpha=pattern_value(path, config.alpha_pattern, config.lora_alpha),
            dropout=config.lora_dropout,
            use_rslora=config.use_rslora,
            key=layer_key,
        )
    _replace(model, dict(layers))
    return layers


def _kind(config: LoraConfig) -> Callable[..., LoRALinear]:
    """What makes a layer of the configured sort."""
    method = config.init_lora_weights
    if isinstance(method, bool):
        return DoRALinear if config.use_dora else LoRALinear
    if config.use_dora:
        raise UserError(
            "lora.use_dora and PiSSA (lora.init_lora_weights) cannot be combined here: PiSSA's "
            "difference to the base is no DoRA adapter; leave one of them out."
        )
    return partial(PissaLinear, method=method)


def target_paths(model: nn.Module, config: LoraConfig) -> list[str]:
    """Paths of the modules that the configuration targets, in the model's order.

    Raises:
        UserError: as `inject`.
    """
    modules = [(path, module) for path, module in model.named_modules() if path]
    modules.sort(key=lambda item: layer_order(item[0]))
    linear = list(linear_layers(model))
    found = [(path, module) for path, module in modules if matches_target(path, config)]
    wrong = [path for path, module in found if not isinstance(module, _LINEAR)]
    if wrong:
        raise UserError(
            f"lora.target_modules matches {wrong[0]}, which is no linear layer; "
            f"linear layers of this model: {_names(linear)}."
        )
    paths = [path for path, _ in found]
    targets = config.target_modules
    names = [] if isinstance(targets, str) else targets
    for name in names:
        if not any(path == name or path.endswith(f".{name}") for path in paths):
            raise UserError(_no_match(name, linear, selected=bool(paths)))
    if not paths:
        raise UserError(_no_match(str(targets), linear, selected=False))
    return paths


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Path → module for the linear layers that LoRA can adapt, in the model's order."""
    found = [(path, m) for path, m in model.named_modules() if isinstance(m, _LINEAR)]
    return dict(sorted(found, key=lambda item: layer_order(item[0])))


def lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """Path → layer for the LoRA layers in a model, in the model's order."""
    found = [(path, m) for path, m in model.named_modules() if isinstance(m, LoRALinear)]
    return dict(sorted(found, key=lambda item: layer_order(item[0])))


def remove(model: nn.Module) -> None:
    """Put the base layers back in the place of the LoRA layers."""
    _replace(model, {path: layer.base for path, layer in lora_layers(model).items()})


@contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """Let the base answer alone for the length of a `with` block."""
    layers = lora_layers(model)
    remove(model)
    try:
        yield
    finally:
        _replace(model, dict(layers))


_LINEAR = (nn.Linear, nn.QuantizedLinear)


def _replace(model: nn.Module, replacements: dict[str, nn.Module]) -> None:
    for path, module in replacements.items():
        parent_path, _, name = path.rpartition(".")
        parent: nn.Module | list[nn.Module] | dict[str, nn.Module] = model
        for part in parent_path.split(".") if parent_path else ():
            parent = parent[int(part)] if isinstance(parent, list) else parent[part]
        parent[int(name) if isinstance(parent, list) else name] = module  # type: ignore[index]


def _names(linear: list[str]) -> str:
    """The last part of each path, once."""
    return ", ".join(dict.fromkeys(path.rpartition(".")[2] for path in linear))


def _no_match(target: str, linear: list[str], *, selected: bool) -> str:
    scope = " in the chosen layers" if selected else ""
    message = f"lora.target_modules: {target!r} matches no linear layer{scope}"
    fused = _FUSED.get(target)
    if fused and any(path.endswith(f".{fused}") for path in linear):
        return f"{message}; this model (as Phi-3 does) fuses it into {fused}: name that instead."
    return f"{message}; linear layers of this model: {_names(linear)}."
