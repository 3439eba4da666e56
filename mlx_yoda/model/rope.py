"""LongRoPE as Phi-3's relatives of 128k use it (arXiv 2402.13753)."""

import math
from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn


class LongRope(nn.Module):
    """Rotary embedding with one set of frequencies for short texts and one for long ones.

    Transformers takes the short factors as long as a text fits into the length that the model was
    first trained for, and the long ones for all of it beyond; mlx-lm's `SuScaledRoPE` always takes
    the long ones. Texts come in pieces here (a prompt, then token after token), so which set
    it is must be said before the first piece (`long`) and cannot change within a text.

    Attributes:
        dims: how many of a head's dimensions are rotated, from the first.
        original: longest text for the short factors, in tokens.
        scale: what queries and keys are multiplied by.
        long: whether the long factors are used.
    """

    def __init__(self, dims: int, base: float, scaling: Mapping[str, Any], maximum: int) -> None:
        """Make the frequencies.

        Args:
            dims: rotated dimensions of a head.
            base: theta.
            scaling: `short_factor` and `long_factor`, `dims / 2` numbers each,
                `original_max_position_embeddings`, and maybe `factor` and `attention_factor`.
            maximum: `max_position_embeddings`.
        """
        super().__init__()
        self.dims, self.long = dims, False
        self.original: int = scaling["original_max_position_embeddings"]
        factor = scaling.get("factor") or maximum / self.original
        own = scaling.get("attention_factor")
        stretched = math.sqrt(1 + math.log(max(factor, 1)) / math.log(self.original))
        self.scale: float = stretched if own is None else own
        # MLX wants wavelengths; the underscore keeps them out of the parameters.
        plain = base ** (mx.arange(0, dims, 2, dtype=mx.float32) / dims)  # (dims / 2,)
        self._short = plain * mx.array(scaling["short_factor"], mx.float32)
        self._long = plain * mx.array(scaling["long_factor"], mx.float32)

    def __call__(self, x: mx.array, offset: int | mx.array = 0) -> mx.array:
        """Rotate `(B, H, T, d)` whose first token is at position `offset`."""
        scaled = x[..., : self.dims] * self.scale
        if self.dims < x.shape[-1]:
            scaled = mx.concatenate([scaled, x[..., self.dims :]], axis=-1)
        wavelengths = self._long if self.long else self._short
        return mx.fast.rope(
            scaled,
            self.dims,
            traditional=False,
            base=None,
            scale=1.0,
            offset=offset,
            freqs=wavelengths,
        )
