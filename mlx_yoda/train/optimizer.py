"""AdamW and gradient clipping as PyTorch computes them, on a tree of float32 weights."""

from functools import partial
from typing import Any, NamedTuple

import mlx.core as mx
from mlx.utils import tree_map

from mlx_yoda.config.schema import TrainConfig
from mlx_yoda.lora.binding import Adapter


class Moments(NamedTuple):
    """AdamW's running means of the gradient and of its square, shaped as the weights."""

    first: Adapter
    second: Adapter


def fresh_moments(adapter: Adapter) -> Moments:
    """Moments before the first step."""
    return Moments(tree_map(mx.zeros_like, adapter), tree_map(mx.zeros_like, adapter))


def global_norm(gradients: Adapter) -> mx.array:
    """The Euclidean norm of all gradients taken as one vector, scalar float32."""
    squares = [mx.square(g).sum() for pair in gradients.values() for g in pair.values()]
    return mx.sqrt(mx.stack(squares).sum())


def clip(gradients: Adapter, norm: mx.array, max_norm: float) -> Adapter:
    """Scale gradients down to `max_norm`, as `torch.nn.utils.clip_grad_norm_` does."""
    scale = mx.minimum(max_norm / (norm + 1e-6), 1.0)
    return tree_map(lambda g: g * scale, gradients)


def if_finite(number: mx.array, new: Any, old: Any) -> Any:
    """The new tree where a scalar is finite, else the old one: decided on the device."""
    return tree_map(partial(mx.where, mx.isfinite(number)), new, old)


def adamw(
    config: TrainConfig,
    weights: Adapter,
    moments: Moments,
    gradients: Adapter,
    rate: mx.array,
    step: mx.array,
) -> tuple[Adapter, Moments]:
    """One step of AdamW (arXiv 1711.05101) in the form of `torch.optim.AdamW`.

    The moments are bias-corrected, the decay is decoupled, epsilon is outside of the root.

    Args:
        config: betas, epsilon and weight decay.
        weights: what is trained.
        moments: of the steps so far.
        gradients: shaped as the weights.
        rate: scalar float32, this step's learning rate.
        step: scalar float32, counted from 1.

    Returns:
        New weights and moments.
    """
    beta1, beta2 = config.adam_beta1, config.adam_beta2
    first = tree_map(lambda m, g: beta1 * m + (1 - beta1) * g, moments.first, gradients)
    second = tree_map(lambda v, g: beta2 * v + (1 - beta2) * g * g, moments.second, gradients)
    correction1 = 1 - mx.power(beta1, step)
    correction2 = mx.sqrt(1 - mx.power(beta2, step))

    def moved(name: str, w: mx.array, m: mx.array, v: mx.array) -> mx.array:
        # LoRA+ (arXiv 2402.12354); as in PEFT, DoRA's magnitude goes with B.
        own = rate if name == "lora_A" else rate * config.loraplus_lr_ratio
        decayed = w * (1 - own * config.weight_decay)
        return decayed - own / correction1 * m / (mx.sqrt(v) / correction2 + config.adam_epsilon)

    updated = {
        path: {
            name: moved(name, w, first[path][name], second[path][name]) for name, w in own.items()
        }
        for path, own in weights.items()
    }
    return updated, Moments(first, second)
