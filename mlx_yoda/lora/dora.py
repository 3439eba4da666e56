"""DoRA: a linear layer whose update changes direction and length apart (arXiv 2402.09353)."""

from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn

from mlx_yoda.lora.layer import LoRALinear, plain_weight
from mlx_yoda.lora.product import Pre, frozen_product, lora_product


class DoRALinear(LoRALinear):
    """`y = m / |W + scale · B A| · (W + scale · B A) x`, row by row, over a frozen base.

    As in PEFT, the norm takes part in the forward pass but gets no gradient (section 4.3 of the
    paper), and a bias stays outside. Dropout falls on the input of the low-rank branch alone, as
    in LoRA; PEFT, where it drops, drops a part of the base's product too.

    The product is LoRA's, with LoRA's own backward pass; what comes on top keeps the product's
    output `(..., out)` besides LoRA's source.

    Attributes:
        lora_magnitude_vector: m `(out,)` float32 master, at first the lengths of W's rows, so
            that a new adapter changes nothing.
    """

    weight_names = ("lora_A", "lora_B", "lora_magnitude_vector")

    def __init__(self, base: nn.Module, **options: Any) -> None:
        super().__init__(base, **options)
        self._settled: mx.array | None = None
        self._squares = mx.square(plain_weight(base)).sum(axis=1)  # (out,), no parameter
        self.lora_magnitude_vector = mx.sqrt(self._squares)
        mx.eval(self._squares)  # one layer's unpacked weight at a time

    def settle(self, still: bool) -> None:
        """Keep the rows' norms, which cost a product with the base's weight, or forget them."""
        self._settled = self.row_norms() if still else None

    def product(self, source: mx.array, pre: Pre | None = None) -> mx.array:
        """Map source to `(..., out)`, as `LoRALinear.product`."""
        y = lora_product(self, source, pre)
        norms = self.row_norms() if self._settled is None else self._settled
        bias = self.base.get("bias")
        if bias is None:
            return _stretched(y, self.lora_magnitude_vector, norms)
        return _stretched(y - bias, self.lora_magnitude_vector, norms) + bias

    def row_norms(self) -> mx.array:
        """`|W + scale · B A|` of each row, `(out,)` float32, without making the sum.

        |w + s b A|² = |w|² + 2 s b · (A w) + s² b (A Aᵀ) bᵀ for a row w of W and b of B.
        """
        a, b, s = self.lora_A, self.lora_B, self.scale
        through = _without_bias(self.base, a).astype(mx.float32).T  # W Aᵀ, (out, r)
        crossed = (b * through).sum(axis=1)
        update = ((b @ (a @ a.T)) * b).sum(axis=1)
        return mx.sqrt(mx.maximum(self._squares + 2 * s * crossed + s * s * update, 0))


def _stretched(y: mx.array, magnitude: mx.array, norms: mx.array) -> mx.array:
    """`y · magnitude / norms` for y `(..., out)`; no gradient flows to norms."""

    def product(y: mx.array, magnitude: mx.array, norms: mx.array) -> mx.array:
        return y * (magnitude / norms).astype(y.dtype)

    def backward(
        primals: tuple[mx.array, ...], dy: mx.array, _: mx.array
    ) -> tuple[mx.array, mx.array, mx.array]:
        y, magnitude, norms = primals
        by_row = (dy.astype(mx.float32) * y.astype(mx.float32)).reshape(-1, y.shape[-1])
        gradient = by_row.sum(axis=0) / norms
        back = dy.astype(y.dtype) * (magnitude / norms).astype(y.dtype)
        # As in LoRA's product: the gradient leaves when the layer's own is done, so that y of one
        # layer is let go of before the next one's is made again.
        (back,) = mx.depends([back], [gradient])
        return back, gradient, mx.zeros_like(norms)

    apply = mx.custom_function(product)
    apply.vjp(backward)
    return cast(mx.array, apply(y, magnitude, mx.stop_gradient(norms)))


def _without_bias(base: nn.Module, x: mx.array) -> mx.array:
    """`x Wᵀ`, `(r, in)` to `(r, out)`, in the base's dtype."""
    quantised = isinstance(base, nn.QuantizedLinear)
    dtype = base.scales.dtype if quantised else base.weight.dtype
    if not mx.issubdtype(dtype, mx.floating):  # the scales of mxfp4 and its like are bytes
        dtype = x.dtype
    return frozen_product(base, x.astype(dtype), transpose=True)
