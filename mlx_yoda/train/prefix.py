"""The layers below the first one that trains, run once for the whole data set.

With `layers_to_transform` on the upper layers, what comes out of the frozen ones below never
changes: it is computed once for each row and kept, `D` numbers a token, instead of once in every
epoch. Gradients are the same; there are none below the first adapted layer anyway.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import mlx.core as mx
import mlx.nn as nn

from mlx_yoda.data.batches import Batch, collate, needed
from mlx_yoda.data.packing import Packed
from mlx_yoda.data.shapes import choose_shapes
from mlx_yoda.lora.binding import Layers
from mlx_yoda.model import phi3
from mlx_yoda.model.family import window_of
from mlx_yoda.train.forward import Arrays

_LAYER = re.compile(r"model\.layers\.(\d+)\.")
_ROWS = 8  # rows that are run at once


@dataclass(frozen=True)
class Prefix:
    """What the frozen layers make of every row.

    Attributes:
        first: the first layer that trains.
        hidden: for each row its `(L, D)` input of that layer, in the base's dtype.
    """

    first: int
    hidden: list[mx.array]

    def arrays(self, batch: Batch) -> Arrays:
        """A batch on the device, with the input of the first layer that trains."""
        rows = [self.hidden[index] for index in batch.indices]
        padding = len(batch.tokens) - batch.input_tokens
        rows.append(mx.zeros((padding, rows[0].shape[-1]), rows[0].dtype))
        return Arrays.of(batch)._replace(hidden=mx.concatenate(rows))  # (N, D)


def first_adapted_layer(model: nn.Module, layers: Layers) -> int:
    """The index of the first layer that trains; 0 where that cannot be told."""
    found = [_LAYER.match(path) for path in layers]
    if not isinstance(model, phi3.Phi3) or not all(found):
        return 0
    return min(int(match[1]) for match in found if match)


def run_prefix(model: phi3.Phi3, first: int, rows: Sequence[Packed]) -> Prefix:
    """Run the first layers over all rows.

    The rows are taken in their own order, so that a resumed run computes the same bits.

    Args:
        model: a Phi-3.
        first: how many layers to run.
        rows: all training rows.
    """
    hidden: list[mx.array] = []
    window = window_of(model)
    for start in range(0, len(rows), _ROWS):
        group = rows[start : start + _ROWS]
        batch = Arrays.of(collate(group, choose_shapes([needed(group)])))
        h, layout = phi3.embed(model, batch.tokens), batch.layout._replace(window=window)
        for layer in model.layers[:first]:
            h = phi3.block(layer, h, layout)  # (N, D)
        ends = [0, *accumulate(len(row.tokens) for row in group)]
        parts = [h[start:end] for start, end in pairwise(ends)]
        mx.eval(parts)
        hidden += parts
    return Prefix(first, hidden)
