"""Learning-rate schedules, as in Transformers (`transformers.optimization`)."""

import math

from mlx_yoda.config.schema import TrainConfig


def warmup_steps(config: TrainConfig, total_steps: int) -> int:
    """Steps of warm-up: `warmup_steps`, or else `warmup_ratio` of all, rounded up."""
    return config.warmup_steps or math.ceil(config.warmup_ratio * total_steps)


def learning_rate(config: TrainConfig, step: int, total_steps: int) -> float:
    """The rate of an optimizer step.

    Args:
        config: names the schedule, the peak and the warm-up.
        step: steps already taken; 0 for the first.
        total_steps: steps of the whole run.
    """
    warmup = 0
    if config.lr_scheduler_type != "constant":
        warmup = warmup_steps(config, total_steps)
    if step < warmup:
        return config.learning_rate * step / warmup
    progress = (step - warmup) / max(1, total_steps - warmup)
    match config.lr_scheduler_type:
        case "linear":
            factor = max(0.0, 1.0 - progress)
        case "cosine":
            factor = max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
        case "constant" | "constant_with_warmup":
            factor = 1.0
    return config.learning_rate * factor
