"""The training step: two pure functions, from a batch to gradient sums and from sums to weights.

Losses and gradients are sums over supervised tokens until the whole optimizer step is gathered,
and are divided once by the number of tokens: k micro-batches are one large batch, to rounding.
"""

from collections.abc import Callable
from typing import NamedTuple

import mlx.core as mx
from mlx.utils import tree_map

from mlx_yoda.config.schema import TrainConfig
from mlx_yoda.data.batches import Batch
from mlx_yoda.lora.binding import Adapter, Layers, dropout_keys, lent
from mlx_yoda.train.forward import Arrays, Forward
from mlx_yoda.train.optimizer import Moments, adamw, clip, fresh_moments, global_norm, if_finite


class State(NamedTuple):
    """Everything that training changes."""

    step: int
    adapter: Adapter
    moments: Moments

    @classmethod
    def fresh(cls, adapter: Adapter) -> "State":
        """The state before the first step."""
        return cls(0, adapter, fresh_moments(adapter))


class Sums(NamedTuple):
    """What the micro-batches of one optimizer step add up to."""

    gradients: Adapter
    loss: mx.array  # scalar float32
    tokens: mx.array  # scalar float32, supervised tokens

    @classmethod
    def zero(cls, adapter: Adapter) -> "Sums":
        """No micro-batch yet."""
        return cls(tree_map(mx.zeros_like, adapter), mx.zeros(()), mx.zeros(()))


class Steps(NamedTuple):
    """The two halves of a training step, compiled or not, and how a batch gets to them."""

    arrays: Callable[[Batch], Arrays]
    accumulate: Callable[[Sums, Adapter, Arrays, mx.array], Sums]
    update: Callable[..., tuple[Adapter, Moments, mx.array]]


def make_steps(
    config: TrainConfig,
    layers: Layers,
    forward: Forward,
    *,
    compiled: bool,
    arrays: Callable[[Batch], Arrays] = Arrays.of,
) -> Steps:
    """Build the step functions.

    Args:
        config: optimizer settings.
        layers: the LoRA layers that `forward` runs through.
        forward: from a batch to its loss sum.
        compiled: whether to compile them, once for each shape of batch.
        arrays: brings a batch to the device.
    """

    def accumulate(sums: Sums, adapter: Adapter, batch: Arrays, key: mx.array) -> Sums:
        def loss_sum(adapter: Adapter) -> mx.array:
            with lent(layers, adapter, dropout_keys(layers, key, batch.places)):
                return forward(batch)

        loss, gradients = mx.value_and_grad(loss_sum)(adapter)
        return Sums(
            tree_map(mx.add, sums.gradients, gradients),
            sums.loss + loss,
            sums.tokens + batch.weights.sum(),
        )

    def update(
        sums: Sums, adapter: Adapter, moments: Moments, rate: mx.array, step: mx.array
    ) -> tuple[Adapter, Moments, mx.array]:
        gradients = tree_map(lambda g: g / sums.tokens, sums.gradients)
        norm = global_norm(gradients)
        if config.max_grad_norm > 0:
            gradients = clip(gradients, norm, config.max_grad_norm)
        new = adamw(config, adapter, moments, gradients, rate, step)
        return *if_finite(sums.loss + norm, new, (adapter, moments)), norm

    if compiled:
        return Steps(arrays, mx.compile(accumulate), mx.compile(update))
    return Steps(arrays, accumulate, update)
