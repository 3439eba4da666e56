"""AdamW, clipping and schedules against PyTorch's and Transformers'."""

import mlx.core as mx
import numpy as np
import pytest
import torch
from transformers import get_scheduler

from mlx_yoda.config.schema import TrainConfig
from mlx_yoda.train.optimizer import adamw, clip, fresh_moments, global_norm
from mlx_yoda.train.schedule import learning_rate, warmup_steps


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_equals_torch_adamw_with_clipping(weight_decay):
    config = TrainConfig(weight_decay=weight_decay, adam_beta2=0.99, adam_epsilon=1e-6)
    rng = np.random.default_rng(0)
    shapes = {"lora_A": (4, 8), "lora_B": (8, 4)}
    start = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    weights = {"path": {name: mx.array(w) for name, w in start.items()}}
    moments = fresh_moments(weights)
    peers = {name: torch.nn.Parameter(torch.tensor(w)) for name, w in start.items()}
    optimizer = torch.optim.AdamW(
        peers.values(), lr=1e-2, betas=(0.9, 0.99), eps=1e-6, weight_decay=weight_decay
    )
    for step in range(1, 21):
        scale = 10 ** rng.uniform(-2, 1)  # some steps are clipped, some are not
        drawn = {name: scale * rng.normal(size=s).astype(np.float32) for name, s in shapes.items()}
        for name, peer in peers.items():
            peer.grad = torch.tensor(drawn[name], dtype=torch.float32)
        norm = torch.nn.utils.clip_grad_norm_(peers.values(), 1.0)
        optimizer.step()
        gradients = {"path": {name: mx.array(g, mx.float32) for name, g in drawn.items()}}
        ours = global_norm(gradients)
        assert ours.item() == pytest.approx(norm.item(), rel=1e-5)
        weights, moments = adamw(
            config,
            weights,
            moments,
            clip(gradients, ours, 1.0),
            mx.array(1e-2),
            mx.array(float(step)),
        )
    for name, peer in peers.items():
        np.testing.assert_allclose(weights["path"][name], peer.detach().numpy(), atol=2e-6)


@pytest.mark.parametrize("name", ["linear", "cosine", "constant", "constant_with_warmup"])
@pytest.mark.parametrize("warmup", [0, 7])
def test_schedules_equal_transformers(name, warmup):
    total = 40
    config = TrainConfig(lr_scheduler_type=name, warmup_steps=warmup, learning_rate=3e-4)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total)
    for step in range(total):
        expected = optimizer.param_groups[0]["lr"]
        assert learning_rate(config, step, total) == pytest.approx(expected, rel=1e-9, abs=1e-15)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("size", [1e-7, 1e-6, 3e-6])
def test_clipping_has_torchs_epsilon(size):
    """It shows where the norm is near it: 1e-6 / (1e-6 + 1e-6) is a half, not 1."""
    drawn = torch.tensor([3.0, 4.0]) / 5 * size
    peer = torch.nn.Parameter(torch.zeros(2))
    peer.grad = drawn.clone()
    torch.nn.utils.clip_grad_norm_([peer], 1e-6)
    gradients = {"path": {"lora_A": mx.array(drawn.numpy())}}
    ours = clip(gradients, global_norm(gradients), 1e-6)["path"]["lora_A"]
    np.testing.assert_allclose(ours, peer.grad.numpy(), rtol=1e-5)


@pytest.mark.parametrize(
    ("ratio", "total", "steps"),
    [(0.1, 11, 2), (0.1, 101, 11), (0.03, 7, 1), (0.5, 3, 2), (1, 5, 5)],
)
def test_a_share_of_warmup_is_rounded_up(ratio, total, steps):
    """As in `TrainingArguments.get_warmup_steps` of Transformers."""
    assert warmup_steps(TrainConfig(warmup_ratio=ratio), total) == steps


def test_warmup_ratio_is_a_share_of_all_steps():
    config = TrainConfig(warmup_ratio=0.1, learning_rate=1.0)
    rates = [learning_rate(config, step, 100) for step in range(12)]
    assert rates[0] == 0
    assert rates[10] == 1
    assert rates[5] == 0.5
