"""The best evaluation so far, and how long it has been waited for a better one."""

import math
from dataclasses import dataclass
from typing import Any

from mlx_yoda.config.schema import TrainConfig


@dataclass(frozen=True)
class Best:
    """What Transformers' Trainer and its EarlyStoppingCallback remember; part of a checkpoint.

    Attributes:
        metric: the best value; None before the first evaluation.
        step: the step it was measured after.
        saved: the step of the checkpoint that is the best of those that were saved, or None.
        waited: evaluations in a row that were no improvement.
    """

    metric: float | None = None
    step: int | None = None
    saved: int | None = None
    waited: int = 0

    def after(self, value: float, step: int, config: TrainConfig) -> "Best":
        """Look at an evaluation.

        As in Transformers, any better value is the best, but only one that is better by more than
        `early_stopping_threshold` ends the waiting; one that is not a number never is better.
        """
        greater = greater_is_better(config)
        worst = -math.inf if greater else math.inf
        old = worst if self.metric is None else self.metric
        better = value > old if greater else value < old
        enough = better and abs(value - old) > config.early_stopping_threshold
        waited = 0 if self.metric is None or enough else self.waited + 1
        if better:
            return Best(value, step, self.saved, waited)
        return Best(old, self.step, self.saved, waited)

    def saving(self, step: int) -> "Best":
        """What to remember in the checkpoint of a step."""
        return Best(self.metric, self.step, step if step == self.step else self.saved, self.waited)

    def exhausted(self, config: TrainConfig) -> bool:
        """Whether the patience has run out."""
        patience = config.early_stopping_patience
        return patience is not None and self.waited >= patience

    def as_dict(self) -> dict[str, Any]:
        """For trainer_state.json, under Transformers' names."""
        return {
            "best_metric": self.metric,
            "best_global_step": self.step,
            "best_saved_step": self.saved,
            "early_stopping_patience_counter": self.waited,
        }

    @classmethod
    def of_dict(cls, stored: dict[str, Any]) -> "Best":
        """From trainer_state.json; a run that never looked for the best has none."""
        return cls(
            stored.get("best_metric"),
            stored.get("best_global_step"),
            stored.get("best_saved_step"),
            stored.get("early_stopping_patience_counter", 0),
        )


def metric_name(config: TrainConfig) -> str | None:
    """Which metric tells the best model, without `eval_`; None where nobody asks for the best."""
    if config.metric_for_best_model:
        return config.metric_for_best_model.removeprefix("eval_")
    asked = config.load_best_model_at_end or config.early_stopping_patience is not None
    return "loss" if asked or config.save_strategy == "best" else None


def greater_is_better(config: TrainConfig) -> bool:
    """Whether more of the metric is better; of loss and perplexity it is not."""
    if config.greater_is_better is not None:
        return config.greater_is_better
    return metric_name(config) in ("exact_match", "chrf")
