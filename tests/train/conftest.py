"""Small models and rows for the tests of the training step."""

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import phi3

from mlx_yoda.config.schema import LoraConfig
from mlx_yoda.data.packing import Packed
from mlx_yoda.lora.binding import Adapter, Layers
from mlx_yoda.lora.inject import inject
from mlx_yoda.model.family import FamilyArgs, FamilyModel

VOCABULARY = 120


def build(
    *,
    layers: int = 2,
    bits: int | None = None,
    tied: bool = False,
    dtype: mx.Dtype = mx.float32,
    window: int | None = None,
    lora: LoraConfig | None = None,
) -> tuple[nn.Module, Layers]:
    """A random Phi-3 (width 64) with LoRA on all its linear layers and B away from zero."""
    mx.random.seed(0)
    args = FamilyArgs(
        model_type="phi3",
        hidden_size=64,
        num_hidden_layers=layers,
        intermediate_size=96,
        num_attention_heads=4,
        rms_norm_eps=1e-5,
        vocab_size=VOCABULARY,
        tie_word_embeddings=tied,
        sliding_window=window,
    )
    model = phi3.Model(args) if window is None else FamilyModel(args)
    model.set_dtype(dtype)
    if bits:
        nn.quantize(model, 32, bits)
    model.freeze()
    found = inject(model, lora or LoraConfig(lora_dropout=0.0), mx.random.key(1))
    for i, layer in enumerate(found.values()):
        layer.lora_B = 0.1 * mx.random.normal(layer.lora_B.shape, key=mx.random.key(i))
    mx.eval(model.parameters())
    return model, found


def random_rows(count: int, shortest: int = 3, longest: int = 20, seed: int = 0) -> list[Packed]:
    """Rows of different lengths, a part of whose tokens is supervised."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        length = int(rng.integers(shortest, longest + 1))
        tokens = rng.integers(1, VOCABULARY, length).astype(np.int32)
        supervised = rng.random(length) < 0.6
        supervised[0], supervised[-1] = False, True
        rows.append(Packed(tokens, supervised, (length,)))
    return rows


def relative(one: Adapter, other: Adapter) -> float:
    """The largest relative distance (Frobenius norm) between two trees' arrays."""
    others = dict(tree_flatten(other))
    distances = [
        mx.linalg.norm(array - others[name]) / mx.linalg.norm(others[name])
        for name, array in tree_flatten(one)
    ]
    return max(distance.item() for distance in distances)


def as_torch(rows: list[Packed]) -> dict[str, Any]:
    """Rows as Transformers takes them: input_ids, attention_mask and labels, each (B, T)."""
    import torch

    longest = max(len(row.tokens) for row in rows)
    tokens = np.zeros((len(rows), longest), np.int64)
    mask, labels = np.zeros_like(tokens), np.full_like(tokens, -100)
    for i, row in enumerate(rows):
        tokens[i, : len(row.tokens)] = row.tokens
        mask[i, : len(row.tokens)] = 1
        labels[i, : len(row.tokens)] = np.where(row.supervised, row.tokens, -100)
    arrays = {"input_ids": tokens, "attention_mask": mask, "labels": labels}
    return {name: torch.tensor(array) for name, array in arrays.items()}


@pytest.fixture
def in_torch() -> Callable[[list[Packed]], dict[str, Any]]:
    return as_torch


@pytest.fixture
def make_model() -> Callable[..., tuple[nn.Module, Layers]]:
    return build


@pytest.fixture(scope="session")
def make_rows() -> Callable[..., list[Packed]]:
    return random_rows


@pytest.fixture
def distance() -> Callable[[Adapter, Adapter], float]:
    return relative
