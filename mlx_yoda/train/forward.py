"""From a batch to its loss sum, for Phi-3 over the ragged layout and for any other model."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_yoda.data.batches import Batch, apart
from mlx_yoda.errors import UserError
from mlx_yoda.lora.binding import adapter_of, keys_of, lent
from mlx_yoda.lora.inject import lora_layers
from mlx_yoda.lora.layer import LoRALinear
from mlx_yoda.lora.product import through_base
from mlx_yoda.model.family import window_of
from mlx_yoda.model.phi3 import Phi3, embed
from mlx_yoda.model.ragged import Layout, fold
from mlx_yoda.train.loss import summed_cross_entropy
from mlx_yoda.train.recompute import Keep, block, recomputed_layer


class Arrays(NamedTuple):
    """A `Batch` on the device; the shapes are there."""

    tokens: mx.array
    layout: Layout
    loss_at: mx.array
    targets: mx.array
    weights: mx.array
    places: mx.array  # (N,) int32, the number of each token in its optimizer step
    hidden: mx.array | None = None  # (N, D), where the first layers have run already

    @classmethod
    def of(cls, batch: Batch) -> "Arrays":
        """Copy a batch to the device."""
        segments = None if batch.segments is None else mx.array(batch.segments)
        layout = Layout(mx.array(batch.rows), mx.array(batch.flat), segments)
        places = np.arange(batch.first, batch.first + len(batch.tokens), dtype=np.int32)
        rest = (mx.array(a) for a in (batch.loss_at, batch.targets, batch.weights, places))
        return cls(mx.array(batch.tokens), layout, *rest)


Forward = Callable[[Arrays], mx.array]


def arrays_for(model: nn.Module) -> Callable[[Batch], Arrays]:
    """How a batch gets to the device for `forward_of(model)`.

    Phi-3 masks the segments that share a row; any other model is given one segment a row.
    """
    return Arrays.of if isinstance(model, Phi3) else lambda batch: Arrays.of(apart(batch))


def forward_of(
    model: nn.Module, keep: Keep | Sequence[Keep] = Keep.SOURCES, first: int = 0
) -> Forward:
    """The function from a batch to its summed loss, scalar float32.

    Args:
        model: any causal model of mlx-lm; Phi-3 has its own, ragged way.
        keep: what Phi-3's layers keep for the backward pass, all the same or one by one; of any
            other model, `Keep.INPUT` recomputes whole layers and the rest keep everything.
        first: the layer to start from, with `Arrays.hidden` as its input
            (`mlx_yoda.train.prefix`); 0 starts from the tokens.

    Raises:
        UserError: Phi-3's head is to be adapted, whose gradient the chunked loss does not make,
            or the layers of another model cannot be recomputed.
    """
    if not isinstance(model, Phi3):
        return _padded(model, recompute=keep is Keep.INPUT)
    return _phi3(model, [keep] * len(model.layers) if isinstance(keep, Keep) else keep, first)


def _phi3(model: Phi3, keep: Sequence[Keep], first: int) -> Forward:
    head = model.model.embed_tokens if model.args.tie_word_embeddings else model.lm_head
    if isinstance(head, LoRALinear):
        raise UserError("lora.target_modules: lm_head cannot be trained; leave it out.")
    project = head.as_linear if model.args.tie_word_embeddings else head
    window = window_of(model)
    layers = [(layer, block(level)) for layer, level in zip(model.layers, keep, strict=True)]

    def loss(batch: Arrays) -> mx.array:
        layout = batch.layout._replace(window=window)
        h = embed(model, batch.tokens) if batch.hidden is None else batch.hidden
        *lower, (last, call_last) = layers[first:]
        for layer, call in lower:
            h = call(layer, h, layout)  # (N, D)
        with dropping_at(last, batch.loss_at):  # of the last layer only what carries loss
            h = call_last(last, h, layout, batch.loss_at)  # (M, D)
        return summed_cross_entropy(
            model.model.norm(h),  # (M, D)
            batch.targets,
            batch.weights,
            project,
            lambda dy: through_base(head, dy),
        )

    return loss


def dropping_at(layer: nn.Module, at: mx.array) -> AbstractContextManager[None]:
    """Lend what follows a decoder layer's attention the keys of the tokens `at` alone."""
    after = {path: m for path, m in lora_layers(layer).items() if not path.endswith("qkv_proj")}
    keys = {path: key[at] for path, key in keys_of(after).items()}  # (M, 2)
    return lent(after, adapter_of(after), keys)


def _padded(model: nn.Module, *, recompute: bool) -> Forward:
    """Any causal model of mlx-lm, through its own forward pass over padded rows."""
    layers = lora_layers(model)
    decoder = _decoder_layers(model) if recompute else []

    def loss(batch: Arrays) -> mx.array:
        if batch.layout.segments is not None:
            raise ValueError("rows with several segments need `arrays_for(model)`")
        at = batch.layout.rows
        keys = {path: key[at] for path, key in keys_of(layers).items()}  # (B, T, 2)
        with lent(layers, adapter_of(layers), keys), recomputing(decoder):
            logits = model(batch.tokens[at])  # (B, T, V)
        logits = fold(logits, batch.layout)[batch.loss_at].astype(mx.float32)  # (M, V)
        return (nn.losses.cross_entropy(logits, batch.targets) * batch.weights).sum()

    return loss


@contextmanager
def recomputing(layers: list[nn.Module]) -> Iterator[None]:
    """Let a model's decoder layers keep their input alone, for the length of a forward pass.

    Args:
        layers: the model's own list; what stands in for its layers is taken out again at the end.
    """
    own = list(layers)
    layers[:] = [recomputed_layer(layer) for layer in own]
    try:
        yield
    finally:
        layers[:] = own


def _decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The list that the model walks through.

    Raises:
        UserError: it has none.
    """
    walked = list(getattr(model, "layers", ()))  # some models give a copy of the list they walk
    for _, module in model.named_modules():
        layers = module.get("layers")
        if walked and isinstance(layers, list) and [*map(id, layers)] == [*map(id, walked)]:
            return layers
    raise UserError(
        "train.gradient_checkpointing: the layers of this architecture cannot be recomputed; "
        "set it to false."
    )
