"""How many parameters a model has."""

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_reduce


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
