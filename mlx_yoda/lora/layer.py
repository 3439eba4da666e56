"""One linear layer with its low-rank update, in PEFT's orientation."""

import math
from typing import ClassVar

import mlx.core as mx
import mlx.nn as nn

from mlx_yoda.lora.product import Pre, lora_product


class LoRALinear(nn.Module):
    """`y = W x + scale · B A drop(x)` over a frozen base (LoRA, arXiv 2106.09685).

    Attributes:
        base: the frozen `nn.Linear` or `nn.QuantizedLinear`, W `(out, in)`.
        lora_A: `(r, in)` float32 master, drawn from U(-1/√in, 1/√in), which is what PEFT's
            Kaiming-uniform initialisation with a = √5 comes to.
        lora_B: `(out, r)` float32 master, zero at first: a new adapter changes nothing.
        scale: `lora_alpha / r`, or `lora_alpha / √r` for rank-stabilised LoRA.
        dropout: probability of dropping an input entry of the branch. It is active only while a
            key is lent (`mlx_yoda.lora.binding`); without one the layer is deterministic.
    """

    weight_names: ClassVar[tuple[str, ...]] = ("lora_A", "lora_B")  # what trains

    def __init__(
        self,
        base: nn.Module,
        *,
        r: int,
        lora_alpha: float,
        dropout: float,
        use_rslora: bool,
        key: mx.array,
    ) -> None:
        super().__init__()
        n_out, n_in = linear_shape(base)
        bound = 1 / math.sqrt(n_in)
        self.base = base
        self.lora_A = mx.random.uniform(-bound, bound, (r, n_in), mx.float32, key)
        self.lora_B = mx.zeros((n_out, r), mx.float32)
        self.scale = lora_alpha / (math.sqrt(r) if use_rslora else r)
        self.dropout = dropout
        self._dropout_key: mx.array | None = None  # the underscore keeps it out of parameters()

    def settle(self, still: bool) -> None:
        """Say whether the weights stay as they are, so that what hangs on them is made once."""

    @property
    def dropout_key(self) -> mx.array | None:
        """The PRNG keys `(..., 2)` of the next call's tokens, or None for no dropout."""
        return self._dropout_key

    def __call__(self, x: mx.array) -> mx.array:
        """Map `(..., in)` to `(..., out)`, in x's dtype."""
        return self.product(x)

    def product(self, source: mx.array, pre: Pre | None = None) -> mx.array:
        """Map `x = pre(source)`, or source itself, to `(..., out)`; see `lora_product`."""
        return lora_product(self, source, pre)


def plain_weight(linear: nn.Module) -> mx.array:
    """The weight `(out, in)` of a linear layer in float32, unpacked if it is quantised."""
    if not isinstance(linear, nn.QuantizedLinear):
        return linear.weight.astype(mx.float32)
    weight = mx.dequantize(
        linear.weight,
        linear.scales,
        linear.get("biases"),
        group_size=linear.group_size,
        bits=linear.bits,
        mode=linear.mode,
    )
    return weight.astype(mx.float32)


def linear_shape(linear: nn.Module) -> tuple[int, int]:
    """The `(out, in)` of a linear layer, unpacked if it is quantised."""
    n_out, n_in = linear.weight.shape
    if isinstance(linear, nn.QuantizedLinear):
        n_in = n_in * 32 // linear.bits
    return n_out, n_in
