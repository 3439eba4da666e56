"""What a model is made of: its linear layers and its parameter counts."""

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_reduce

from mlx_yoda.config.lora_names import layer_order

Linear = nn.Linear | nn.QuantizedLinear


def linear_modules(model: nn.Module) -> dict[str, Linear]:
    """Path → linear layer, layer 2 before layer 10.

    A layer that carries a LoRA update is found under its own path, not under `<path>.base`, so
    that the names are the same before and after injection.
    """
    modules = dict(model.named_modules())
    found: dict[str, Linear] = {}
    for path, module in modules.items():
        if isinstance(module, Linear):
            parent, _, name = path.rpartition(".")
            adapted = name == "base" and "lora_A" in modules[parent]
            found[parent if adapted else path] = module
    return dict(sorted(found.items(), key=lambda item: layer_order(item[0])))


def in_out(linear: Linear) -> tuple[int, int]:
    """The `(in, out)` of a linear layer, unpacked if it is quantised."""
    n_out, n_in = linear.weight.shape
    if isinstance(linear, nn.QuantizedLinear):
        n_in = n_in * 32 // linear.bits
    return n_in, n_out


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Count `(trainable, total)` parameters; a quantised weight counts as what it stands for.

    Scales and biases of the quantisation are no parameters of the model and do not count.
    """
    trainable = _size(model.trainable_parameters())
    total = _size(model.parameters())
    for module in model.modules():
        if isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding):
            packed = [module.weight, module.scales, module.get("biases", mx.array([]))]
            total += module.weight.size * 32 // module.bits - sum(a.size for a in packed)
    return trainable, total


def _size(tree: dict) -> int:
    return tree_reduce(lambda total, array: total + array.size, tree, 0)
