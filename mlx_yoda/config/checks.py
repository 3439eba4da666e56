"""Which values make sense: the range of each key, beyond its type."""

from collections.abc import Callable, Iterator
from typing import Any

from mlx_yoda.config.keys import keys
from mlx_yoda.config.quantization import trouble
from mlx_yoda.config.schema import Config, TrainConfig

Check = tuple[Callable[[Any], bool], str]  # whether a value will do, and what it must be

_LARGEST = 2**31  # of what is counted; NumPy and MLX count in 32 bits here and there

_POSITIVE: Check = (lambda v: v > 0, "above 0")
_NOT_NEGATIVE: Check = (lambda v: v >= 0, "0 or more")
_AT_LEAST_1: Check = (lambda v: v >= 1, "1 or more")
_SHARE: Check = (lambda v: 0 <= v < 1, "from 0 to below 1")
_STEPS: Check = (
    lambda v: 0 < v < 1 or (v >= 1 and v == int(v)),
    "a whole number of steps, or a share of all steps below 1",
)
_TRACKERS = ("tensorboard", "wandb", "trackio")
_METRICS = ("loss", "perplexity", "exact_match", "chrf")
_NOT_EMPTY: Check = (lambda v: len(v) > 0 and all(v), "not empty")

_CHECKS: dict[str, Check] = {
    "lora.r": (lambda v: 1 <= v <= 65536, "from 1 to 65536"),
    "lora.lora_alpha": _POSITIVE,
    "lora.lora_dropout": _SHARE,
    "lora.target_modules": _NOT_EMPTY,
    "lora.layers_to_transform": (
        lambda v: v == [] or min(v if isinstance(v, list) else [v]) >= 0,
        "0 or more, as layers are counted from 0",
    ),
    "lora.rank_pattern": (
        lambda v: all(1 <= r <= 65536 for r in v.values()),
        "ranks from 1 to 65536",
    ),
    "lora.alpha_pattern": (lambda v: all(a > 0 for a in v.values()), "values above 0"),
    "lora.init_lora_weights": (lambda v: v is not False, "true or one of pissa's names"),
    "data.validation_split": _SHARE,
    "data.max_length": (lambda v: v >= 2, "2 or more"),
    "train.num_train_epochs": (lambda v: 0 < v <= 1e6, "above 0 and at most 1000000"),
    "train.max_steps": (lambda v: v == -1 or v >= 1, "1 or more, or -1 to go by epochs"),
    "train.per_device_train_batch_size": _AT_LEAST_1,
    "train.per_device_eval_batch_size": _AT_LEAST_1,
    "train.gradient_accumulation_steps": _AT_LEAST_1,
    "train.learning_rate": _POSITIVE,
    "train.warmup_steps": _NOT_NEGATIVE,
    "train.warmup_ratio": (lambda v: 0 <= v <= 1, "from 0 to 1"),
    "train.loraplus_lr_ratio": _POSITIVE,
    "train.weight_decay": _NOT_NEGATIVE,
    "train.adam_beta1": _SHARE,
    "train.adam_beta2": _SHARE,
    "train.adam_epsilon": _POSITIVE,
    "train.max_grad_norm": _NOT_NEGATIVE,
    "train.logging_steps": _STEPS,
    "train.eval_steps": _STEPS,
    "train.save_steps": _STEPS,
    "train.save_total_limit": _AT_LEAST_1,
    "train.metric_for_best_model": (
        lambda v: v.removeprefix("eval_") in _METRICS,
        f"one of {', '.join(_METRICS)}",
    ),
    "train.early_stopping_patience": _AT_LEAST_1,
    "train.early_stopping_threshold": _NOT_NEGATIVE,
    "train.report_to": (
        lambda v: v in ("none", "all", *_TRACKERS) or (v != "" and {*v} <= {*_TRACKERS}),
        f"none, all, or any of {', '.join(_TRACKERS)}",
    ),
    "train.generation_max_new_tokens": _AT_LEAST_1,
    "train.seed": (lambda v: 0 <= v < 2**64, "from 0 to below 2**64"),
}


def problems(config: Config) -> Iterator[tuple[str, str]]:
    """Each key whose value makes no sense, with what it must be ("1 or more")."""
    for path, key in keys().items():
        value = getattr(getattr(config, key.section), key.name)
        holds, wanted = _CHECKS.get(path, _NOT_EMPTY if isinstance(value, str) else _ANYTHING)
        if value is not None and not holds(value):
            yield path, wanted
        elif type(value) is int and value >= _LARGEST and path != "train.seed":
            yield path, f"below {_LARGEST}"


def conflicts(config: Config) -> Iterator[tuple[str, str]]:
    """Each key whose value cannot go with the others', with what it needs."""
    train = config.train
    packed = config.model.quantization
    if packed is not None and (need := trouble(packed)):
        yield "model.quantization", f"cannot be: {need}"
    wants_best = [
        name
        for name, wanted in (
            ("load_best_model_at_end", train.load_best_model_at_end),
            ("early_stopping_patience", train.early_stopping_patience is not None),
            ("save_strategy", train.save_strategy == "best"),
        )
        if wanted
    ]
    if wants_best and train.eval_strategy == "no":
        yield f"train.{wants_best[0]}", "needs evaluations: set train.eval_strategy"
    if not train.load_best_model_at_end or train.save_strategy == "best":
        return
    if train.save_strategy != train.eval_strategy:
        yield (
            "train.load_best_model_at_end",
            "needs train.save_strategy and train.eval_strategy to be the same (or save_strategy "
            f"to be best); they are {train.save_strategy} and {train.eval_strategy}",
        )
    elif train.eval_strategy == "steps" and not _is_multiple(train):
        yield (
            "train.load_best_model_at_end",
            "needs train.save_steps to be a multiple of train.eval_steps; they are "
            f"{train.save_steps} and {train.eval_steps}",
        )


def _is_multiple(train: TrainConfig) -> bool:
    """Whether every checkpoint comes with an evaluation, as Transformers asks for."""
    evaluation = train.logging_steps if train.eval_steps is None else train.eval_steps
    if (evaluation < 1) != (train.save_steps < 1):
        return False
    return round(train.save_steps * 10**6) % round(evaluation * 10**6) == 0


_ANYTHING: Check = (lambda _: True, "")
