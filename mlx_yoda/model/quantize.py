"""Packing a model's weights layer by layer, so that one layer at a time is in memory unpacked."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map, tree_unflatten

from mlx_yoda.config.quantization import group_sizes, packing
from mlx_yoda.config.schema import Quantization
from mlx_yoda.errors import UserError


def quantize(
    model: nn.Module, config: dict[str, Any], wanted: Quantization, path: Path
) -> dict[str, Any]:
    """Pack linear layers and embedding as `mlx_lm.convert` does.

    What has a width that no group size divides stays as it is.

    Args:
        model: its weights still on disk; each layer's is read, packed, and let go of.
        config: what config.json says.
        wanted: bits, group size and mode, which go together.
        path: where the model came from, for messages.

    Returns:
        The configuration of the packed model.

    Raises:
        UserError: it is packed already, or needs another group size.
    """
    if config.get("quantization") or config.get("quantization_config"):
        raise UserError(
            f"{path} is quantised already: leave model.quantization out, or take the original "
            "weights."
        )
    own = packing(wanted)._asdict()
    said: dict[str, Any] = dict(own)
    found = False
    choice = getattr(model, "quant_predicate", None)  # an architecture's, such as for its routers
    with nothing_cached():
        for name in _packable(model):  # a module held on to would keep its unpacked weight
            chosen = choice(name, _module(model, name)) if choice else True
            if not chosen:
                continue
            options = chosen if isinstance(chosen, dict) else own
            if not _divides(name, _module(model, name), options, path):
                continue
            if isinstance(chosen, dict):
                said[name] = chosen
            packed = _module(model, name).to_quantized(**options)
            mx.eval(packed.parameters())
            model.update_modules(tree_unflatten([(name, packed)]))
            found = True
    if not found:
        raise UserError(f"no layer of {path} has a width that can be packed in {wanted.mode}.")
    return {**config, "quantization": said, "quantization_config": said}


def settle(model: nn.Module) -> None:
    """Read what is still on disk, array by array: a cast needs its source for a moment only."""
    with nothing_cached():
        tree_map(mx.eval, model.parameters())


@contextmanager
def nothing_cached() -> Iterator[None]:
    """Give freed buffers back to the system at once for the length of a `with` block."""
    before = mx.set_cache_limit(0)
    try:
        yield
    finally:
        mx.set_cache_limit(before)


def _packable(model: nn.Module) -> list[str]:
    """Paths of the modules that know how to pack themselves."""
    return [path for path, module in model.named_modules() if hasattr(module, "to_quantized")]


def _module(model: nn.Module, path: str) -> Any:
    found: Any = model
    for part in path.split(".") if path else ():
        found = found[int(part)] if isinstance(found, list) else found[part]
    return found


def _divides(name: str, module: nn.Module, options: dict[str, Any], path: Path) -> bool:
    """Whether the group size divides a layer's width; where no group size does, it stays whole."""
    width, group_size = module.weight.shape[-1], options["group_size"]
    possible = [size for size in group_sizes(options.get("mode", "affine")) if width % size == 0]
    if possible and group_size not in possible:
        raise UserError(
            f"the weight of {name} in {path} is {width} wide, which groups of {group_size} do not "
            f"divide: take a group_size of {possible[-1]}."
        )
    return bool(possible)
