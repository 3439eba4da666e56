"""PiSSA: LoRA that starts from the base's principal directions (arXiv 2404.02948).

PEFT takes the principal part `s B0 A0` out of the base's weight and trains it as the adapter. Here
the base stays as it is, quantised or not, and the part is taken off in the branch:
`y = W x + s (B A - B0 A0) drop(x)`, which is the same function. So what is saved, A over A0 and B
beside -B0, is a LoRA adapter of twice the rank for the original base, as PEFT makes one with
`path_initial_model_for_weight_conversion`; it needs to know nothing of PiSSA to be loaded.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_yoda.config.schema import LoraConfig
from mlx_yoda.lora.layer import LoRALinear, plain_weight
from mlx_yoda.lora.product import Pre, lora_product

_SPARE = 8  # further directions that a randomised decomposition looks at


@dataclass(frozen=True)
class _Doubled:
    """What `lora_product` needs of a layer."""

    base: nn.Module
    lora_A: mx.array
    lora_B: mx.array
    scale: float
    dropout: float
    dropout_key: mx.array | None


class PissaLinear(LoRALinear):
    """A LoRA layer of rank r that starts from the base's r principal directions.

    Attributes:
        lora_A: `(2 r, in)` float32: A, which trains, over A0, which does not.
        lora_B: `(out, 2 r)` float32: B, which trains, beside -B0, which does not.
    """

    def __init__(self, base: nn.Module, *, r: int, method: str, **options: Any) -> None:
        """Decompose the base's weight.

        Args:
            base: the frozen layer.
            r: the rank that trains.
            method: `pissa` decomposes exactly, `pissa_niter_N` by N steps of subspace iteration.
            options: as `LoRALinear`.
        """
        super().__init__(base, r=r, **options)
        left, values, right = _principal(np.array(plain_weight(base)), r, method)
        root = np.sqrt(values / self.scale)  # (r,), half of a singular value goes to either side
        a, b = mx.array(root[:, None] * right), mx.array(left * root)
        self.lora_A = mx.concatenate([a, a])
        self.lora_B = mx.concatenate([b, -b], axis=1)

    def product(self, source: mx.array, pre: Pre | None = None) -> mx.array:
        """Map source to `(..., out)`, as `LoRALinear.product`.

        `B A - B0 A0` is computed as `B (A - A0) + (B - B0) A0`: the differences are small and
        made in float32, so half precision does not lose them, and at first they are zero.
        """
        r = self.lora_A.shape[0] // 2
        a, b = self.lora_A[:r], self.lora_B[:, :r]
        a0, b0 = mx.stop_gradient(self.lora_A[r:]), -mx.stop_gradient(self.lora_B[:, r:])
        doubled = _Doubled(
            self.base,
            mx.concatenate([a - a0, a0]),
            mx.concatenate([b, b - b0], axis=1),
            self.scale,
            self.dropout,
            self.dropout_key,
        )
        return lora_product(cast(LoRALinear, doubled), source, pre)


def as_saved(lora: LoraConfig) -> LoraConfig:
    """The configuration of the adapter that a run leaves: of PiSSA's, one of twice the rank."""
    if lora.init_lora_weights is True:
        return lora
    growth = math.sqrt(2) if lora.use_rslora else 2  # so that the scale stays
    return replace(
        lora,
        init_lora_weights=True,
        r=2 * lora.r,
        lora_alpha=lora.lora_alpha * growth,
        rank_pattern={name: 2 * r for name, r in lora.rank_pattern.items()},
        alpha_pattern={name: alpha * growth for name, alpha in lora.alpha_pattern.items()},
    )


def _principal(
    weight: np.ndarray, r: int, method: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first r of a singular value decomposition: `(out, r)`, `(r,)`, `(r, in)` float32."""
    if method == "pissa":
        left, values, right = np.linalg.svd(weight, full_matrices=False)
    else:  # Halko, Martinsson and Tropp, arXiv 0909.4061, algorithms 4.4 and 5.1
        width = min(r + _SPARE, *weight.shape)
        draws = np.random.default_rng(0).standard_normal((weight.shape[1], width))
        basis = np.linalg.qr(weight @ draws.astype(np.float32))[0]  # (out, width)
        for _ in range(int(method.rpartition("_")[2])):
            basis = np.linalg.qr(weight @ np.linalg.qr(weight.T @ basis)[0])[0]
        left, values, right = np.linalg.svd(basis.T @ weight, full_matrices=False)
        left = basis @ left
    return left[:, :r], values[:r], right[:r]
