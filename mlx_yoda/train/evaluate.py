"""Loss on held-out rows."""

import math
from collections.abc import Sequence
from typing import cast

import mlx.nn as nn
import numpy as np

from mlx_yoda.data.batches import collate, group_needs
from mlx_yoda.data.packing import Packed, PackedRows
from mlx_yoda.data.shapes import choose_shapes
from mlx_yoda.train.forward import arrays_for, forward_of
from mlx_yoda.train.group import Group


def held_out_loss(
    model: nn.Module, rows: Sequence[Packed], batch_size: int, group: Group | None = None
) -> tuple[float, int]:
    """Sum of the loss over all supervised tokens of the rows, without dropout.

    Args:
        model: with its LoRA layers, or without any.
        rows: every one of them counts, once.
        batch_size: rows computed at once.
        group: the processes that share the rows; None for this one alone.

    Returns:
        `(loss_sum, n_tokens)`: their ratio is the mean cross-entropy in nats a token.
    """
    rows, group = PackedRows.of(rows), group or Group()
    order = np.argsort(-rows.lengths, kind="stable")[group.rank :: group.size]
    firsts = np.arange(0, len(order), batch_size)
    shapes = choose_shapes(group_needs(rows, order, firsts)) if len(order) else []
    forward, arrays = forward_of(model), arrays_for(model)
    total, tokens = 0.0, 0
    for first in firsts:
        batch = collate([rows[i] for i in order[first : first + batch_size].tolist()], shapes)
        loss = forward(arrays(batch))
        total += cast(float, loss.item())
        tokens += batch.supervised_tokens
    totals, counts = zip(*group.gathered((total, tokens)), strict=True)
    return sum(totals), sum(counts)


def perplexity(loss: float) -> float:
    """The exponential of a mean cross-entropy in nats; infinite where a float cannot hold it."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf
