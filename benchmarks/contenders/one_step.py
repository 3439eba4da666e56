"""One training step of mlx-lm's tuner and of mlx-yoda, each as a function to call again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.optimizers import AdamW
from mlx_lm.models import phi3
from mlx_lm.tuner.trainer import default_loss
from mlx_lm.tuner.utils import linear_to_lora_layers

from benchmarks.contenders.job import TARGETS
from mlx_yoda.config.schema import LoraConfig, TrainConfig
from mlx_yoda.data.batches import collate, needed
from mlx_yoda.data.packing import Packed
from mlx_yoda.data.shapes import choose_shapes
from mlx_yoda.lora.binding import adapter_of, flatten
from mlx_yoda.lora.inject import inject
from mlx_yoda.train.forward import Arrays, forward_of
from mlx_yoda.train.prefix import run_prefix
from mlx_yoda.train.recompute import Keep
from mlx_yoda.train.step import State, Sums, make_steps

Step = Callable[[], None]

ORDERS = ("as in the loop", "first layer first", "last layer first", "compiled", "compiled back")
"""In which order the gradients of a step are asked for."""


@dataclass(frozen=True)
class Material:
    """A model's config.json and the rows of a step.

    Attributes:
        config: the model.
        rows: one example each, all of one length; the last tokens are supervised.
        dropout: of the LoRA branch.
    """

    config: dict[str, Any]
    rows: list[Packed]
    dropout: float

    @property
    def layers(self) -> int:
        """Decoder layers of the model."""
        return int(self.config["num_hidden_layers"])

    @classmethod
    def random(
        cls,
        *,
        width: int,
        layers: int,
        vocabulary: int,
        rows: int,
        length: int,
        supervised: int,
        dropout: float,
    ) -> "Material":
        """Random tokens for a model with random weights."""
        config = {
            "model_type": "phi3",
            "hidden_size": width,
            "num_hidden_layers": layers,
            "intermediate_size": width * 8 // 3 // 32 * 32,
            "num_attention_heads": max(4, width // 64),
            "rms_norm_eps": 1e-5,
            "vocab_size": vocabulary,
        }
        draw = np.random.default_rng(0)
        mask = np.arange(length) >= length - supervised
        tokens = draw.integers(1, vocabulary, (rows, length)).astype(np.int32)
        return cls(config, [Packed(row, mask, (length,)) for row in tokens], dropout)

    def model(self) -> phi3.Model:
        """The frozen model; the same weights at each call."""
        mx.random.seed(0)
        model = phi3.Model(phi3.ModelArgs.from_dict(self.config))
        model.freeze()
        mx.eval(model.parameters())
        return model


def mlx_lm(material: Material, count: int | None = None) -> Step:
    """As `mlx_lm.tuner.trainer.train` compiles and takes it.

    Args:
        material: model and rows.
        count: how many layers are adapted, from the last one on; None for all.
    """
    model = material.model()
    part = {"o_proj": "self_attn", "qkv_proj": "self_attn"}
    keys = {f"{part.get(name, 'mlp')}.{name}" for name in TARGETS}
    lora = {"rank": 8, "scale": 2.0, "dropout": material.dropout, "keys": keys}
    linear_to_lora_layers(model, count or material.layers, lora)
    model.train()
    optimizer = AdamW(3e-4, weight_decay=0.0, bias_correction=True)
    value_and_grad = nn.value_and_grad(model, default_loss)
    tokens = np.stack([row.tokens for row in material.rows])
    batch = mx.array(np.pad(tokens, ((0, 0), (0, 1))))
    prompt = int((~material.rows[0].supervised).sum())
    lengths = mx.array([[prompt, tokens.shape[1]]] * len(tokens))
    state = [model.state, optimizer.state, mx.random.state]

    def step(batch: mx.array, lengths: mx.array) -> tuple[mx.array, mx.array]:
        (loss, count), gradients = value_and_grad(model, batch, lengths)
        optimizer.update(model, gradients)
        return loss, count

    compiled = mx.compile(step, inputs=state, outputs=state)

    def run() -> None:
        loss, count = compiled(batch, lengths)
        mx.eval(state, loss, count)

    return run


def mlx_yoda(
    material: Material,
    keep: Keep | Sequence[Keep],
    *,
    order: str = ORDERS[0],
    upper: Sequence[int] | None = None,
) -> Step:
    """As `mlx_yoda.train.loop` takes it.

    Args:
        material: model and rows.
        keep: what the layers keep.
        order: one of `ORDERS`.
        upper: the layers that are adapted, if not all; those below them are run once.
    """
    model = material.model()
    lora = LoraConfig(
        lora_dropout=material.dropout,
        target_modules=list(TARGETS),
        layers_to_transform=None if upper is None else list(upper),
    )
    layers = inject(model, lora, mx.random.key(0))
    first = 0 if upper is None else min(upper)
    rows = material.rows
    arrays = run_prefix(model, first, rows).arrays if first else Arrays.of
    batch = arrays(collate(rows, choose_shapes([needed(rows)]), range(len(rows))))
    steps = make_steps(
        TrainConfig(),
        layers,
        forward_of(model, keep, first),
        compiled=order.startswith("compiled"),
    )
    state = State.fresh(adapter_of(layers))
    mx.eval(state.adapter, state.moments, batch)

    def run() -> None:
        nonlocal state
        key = mx.random.key(state.step)
        sums = steps.accumulate(Sums.zero(state.adapter), state.adapter, batch, key)
        _evaluate(sums, order)
        adapter, moments, norm = steps.update(
            sums, state.adapter, state.moments, mx.array(3e-4), mx.array(state.step + 1.0)
        )
        mx.eval(adapter, moments, norm)
        state = State(state.step + 1, adapter, moments)

    return run


def _evaluate(sums: Sums, order: str) -> None:
    """Evaluate a step's sums; the traversal starts from what stands first."""
    gradients = flatten(sums.gradients)
    if order in ("last layer first", "compiled back"):
        gradients.reverse()
    if order == "as in the loop":
        mx.async_eval(sums)
    else:
        mx.eval(*gradients, sums.loss, sums.tokens)
