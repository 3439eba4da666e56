"""Do gradients with LoRA dropout survive gradient checkpointing?

python -m benchmarks.dropout        # a table, in seconds

Recomputing a layer is only checkpointing if it computes the same thing again. Each contender
takes the gradient of one batch twice from the same seed, without and with its checkpointing; the
table shows the relative distance `|g' - g| / |g|` over all LoRA weights. Rounding is about 1e-7.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.models import phi3
from mlx_lm.tuner.trainer import grad_checkpoint
from mlx_lm.tuner.utils import linear_to_lora_layers

from mlx_yoda.config.schema import LoraConfig
from mlx_yoda.data.batches import collate, needed
from mlx_yoda.data.packing import Packed
from mlx_yoda.data.shapes import choose_shapes
from mlx_yoda.lora.binding import adapter_of, dropout_keys, lent
from mlx_yoda.lora.inject import inject
from mlx_yoda.train.forward import Arrays, forward_of
from mlx_yoda.train.recompute import Keep

DROPOUTS = (0.0, 0.05, 0.5)  # the first is the control: everyone is exact there
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "rms_norm_eps": 1e-5,
    "vocab_size": 120,
}
_ROWS, _LENGTH, _SEED, _RANK, _ALPHA = 4, 24, 7, 8, 16
_TARGETS = ["o_proj", "qkv_proj", "gate_up_proj", "down_proj"]
_KEYS = {
    f"{part}.{name}"
    for part, name in zip(["self_attn", "self_attn", "mlp", "mlp"], _TARGETS, strict=True)
}


@dataclass(frozen=True)
class Error:
    """What checkpointing did to a gradient.

    Attributes:
        contender: who computed it.
        dropout: of the LoRA branch.
        error: relative distance to the gradient without checkpointing; None if not measured.
        note: why not.
    """

    contender: str
    dropout: float
    error: float | None
    note: str = ""


def measure(dropouts: tuple[float, ...] = DROPOUTS) -> Iterator[Error]:
    """Every contender at every dropout."""
    for name, contender in contenders().items():
        for dropout in dropouts:
            try:
                yield Error(name, dropout, contender(dropout))
            except ImportError:
                yield Error(name, dropout, None, "not installed")


def contenders() -> dict[str, Callable[[float], float]]:
    """Name → from the dropout to the gradient's relative error, on what this machine has."""
    found: dict[str, Callable[[float], float]] = {}
    for keep in (Keep.SOURCES, Keep.ATTENTION, Keep.INPUT):
        for compiled in (False, True):
            name = f"mlx-yoda, keep {keep.name.lower()}, {'compiled' if compiled else 'eager'}"
            found[name] = partial(yoda, keep=keep, compiled=compiled)
    found["mlx-lm --grad-checkpoint"] = mlx_lm
    found["Unsloth's MLX trainer"] = unsloth
    found["Transformers + PEFT, CPU"] = partial(peft, device="cpu")
    if sys.platform == "darwin":
        found["Transformers + PEFT, MPS"] = partial(peft, device="mps")
    return found


def yoda(dropout: float, *, keep: Keep, compiled: bool) -> float:
    """Ours: everything kept, eagerly, against `keep`."""
    model = _phi3()
    layers = inject(model, LoraConfig(r=_RANK, lora_dropout=dropout), mx.random.key(1))
    adapter = adapter_of(layers)
    for i, weights in enumerate(adapter.values()):
        weights["lora_B"] = 0.1 * mx.random.normal(weights["lora_B"].shape, key=mx.random.key(i))
    rows = [Packed(tokens, np.arange(_LENGTH) > 0, (_LENGTH,)) for tokens in _tokens()]
    batch = Arrays.of(collate(rows, choose_shapes([needed(rows)])))

    def gradient(keep: Keep, compiled: bool) -> np.ndarray:
        forward = forward_of(model, keep)

        def run(key: mx.array) -> dict[str, dict[str, mx.array]]:
            def loss(adapter: dict[str, dict[str, mx.array]]) -> mx.array:
                with lent(layers, adapter, dropout_keys(layers, key, batch.places)):
                    return forward(batch)

            return mx.grad(loss)(adapter)

        return _vector((mx.compile(run) if compiled else run)(mx.random.key(_SEED)))

    return _distance(gradient(Keep.EVERYTHING, False), gradient(keep, compiled))


def mlx_lm(dropout: float) -> float:
    """mlx-lm's LoRALinear and its `grad_checkpoint`, which the trainer's option calls."""
    model = _adapted_by_mlx_lm(dropout)
    plain = _gradient_by_mlx_lm(model)
    layer = type(model.layers[0])
    call = layer.__call__
    grad_checkpoint(model.layers[0])  # replaces the class's __call__
    try:
        return _distance(plain, _gradient_by_mlx_lm(model))
    finally:
        layer.__call__ = call


def unsloth(dropout: float) -> float:
    """mlx-lm's layers, which Unsloth trains as well, under Unsloth's own checkpointing.

    Off a Mac its package wants UNSLOTH_ZOO_DISABLE_GPU_INIT=1 to be imported.
    """
    from unsloth_zoo.mlx.utils import (  # type: ignore[import-not-found]
        apply_gradient_checkpointing,
        remove_gradient_checkpointing,
    )

    model = _adapted_by_mlx_lm(dropout)
    plain = _gradient_by_mlx_lm(model)
    apply_gradient_checkpointing(model)
    try:
        return _distance(plain, _gradient_by_mlx_lm(model))
    finally:
        remove_gradient_checkpointing(model)


def peft(dropout: float, *, device: str) -> float:
    """Transformers' `activation_checkpointing_enable` under PEFT's LoRA."""
    import torch
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model
    from transformers import Phi3Config, Phi3ForCausalLM

    torch.manual_seed(0)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    base = Phi3ForCausalLM(Phi3Config(**SIZES, **ids, num_key_value_heads=4))
    config = PeftConfig(
        r=_RANK, lora_alpha=_ALPHA, lora_dropout=dropout, target_modules=_TARGETS,
        init_lora_weights=False, task_type="CAUSAL_LM",
    )  # fmt: skip
    model = get_peft_model(base, config).to(device).train()
    tokens = torch.tensor(_tokens().astype(np.int64), device=device)

    def gradient() -> np.ndarray:
        model.zero_grad()
        torch.manual_seed(_SEED)
        model(tokens, labels=tokens, use_cache=False).loss.backward()
        gradients = [p.grad for p in model.parameters() if p.requires_grad]
        return torch.cat([g.flatten() for g in gradients]).cpu().numpy()

    plain = gradient()
    model.enable_input_require_grads()
    model.activation_checkpointing_enable({"use_reentrant": False})
    return _distance(plain, gradient())


def _phi3() -> nn.Module:
    mx.random.seed(0)
    model = phi3.Model(phi3.ModelArgs(model_type="phi3", **SIZES))
    model.freeze()
    return model


def _adapted_by_mlx_lm(dropout: float) -> nn.Module:
    model = _phi3()
    config = {"rank": _RANK, "dropout": dropout, "scale": _ALPHA / _RANK, "keys": _KEYS}
    linear_to_lora_layers(model, len(model.layers), config)
    for _, module in model.named_modules():
        if "lora_b" in module:
            module.lora_b = 0.1 * mx.random.normal(module.lora_b.shape)
    model.train()
    return model


def _gradient_by_mlx_lm(model: nn.Module) -> np.ndarray:
    def loss(model: nn.Module, tokens: mx.array) -> mx.array:
        return nn.losses.cross_entropy(model(tokens[:, :-1]), tokens[:, 1:]).mean()

    mx.random.seed(_SEED)
    return _vector(nn.value_and_grad(model, loss)(model, mx.array(_tokens()))[1])


def _tokens() -> np.ndarray:
    rng = np.random.default_rng(_SEED)
    return rng.integers(1, SIZES["vocab_size"], (_ROWS, _LENGTH)).astype(np.int32)


def _vector(gradients: object) -> np.ndarray:
    arrays = sorted(tree_flatten(gradients), key=lambda item: item[0])
    return np.concatenate([np.array(array).ravel() for _, array in arrays])


def _distance(expected: np.ndarray, got: np.ndarray) -> float:
    return float(np.linalg.norm(got - expected) / np.linalg.norm(expected))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.dropout",
        description="The relative error of LoRA gradients that checkpointing makes of dropout.",
    )
    parser.parse_args()
    sys.stdout.write(f"{'gradient error with checkpointing':40} {'dropout':>8} {'error':>15}\n")
    for result in measure():
        error = result.note if result.error is None else f"{result.error:.1e}"
        sys.stdout.write(f"{result.contender:40} {result.dropout:8} {error:>15}\n")


if __name__ == "__main__":
    main()
