"""What happens after a step when it is time: evaluation, checkpoints."""

from collections.abc import Sequence
from pathlib import Path

import mlx.nn as nn

from mlx_yoda.config.schema import TrainConfig
from mlx_yoda.data.packing import Packed
from mlx_yoda.lora.binding import Layers, install
from mlx_yoda.report.events import Evaluated, Reporter, Saved
from mlx_yoda.train.checkpoint import Identity, rotate, save_checkpoint
from mlx_yoda.train.evaluate import held_out_loss, perplexity
from mlx_yoda.train.meter import Meter
from mlx_yoda.train.plan import Plan
from mlx_yoda.train.step import State


class Milestones:
    """Called after each step; evaluates and saves as the strategies say, and at the end."""

    def __init__(
        self,
        config: TrainConfig,
        plan: Plan,
        model: nn.Module,
        layers: Layers,
        validation: Sequence[Packed],
        identity: Identity,
        output_dir: Path,
        report: Reporter,
    ) -> None:
        self.config, self.plan = config, plan
        self.model, self.layers = model, layers
        self.validation, self.identity = validation, identity
        self.output_dir, self.report = output_dir, report

    def __call__(self, state: State, meter: Meter) -> None:
        """Do what is due after this step."""
        config = self.config
        if self.validation and self._due(config.eval_strategy, config.eval_steps, state.step):
            self._evaluate(state)
        if self._due(config.save_strategy, config.save_steps, state.step):
            path = save_checkpoint(self.output_dir, state, meter, self.identity)
            rotate(self.output_dir, config.save_total_limit)
            self.report(Saved(state.step, str(path)))

    def _due(self, strategy: str, every: int, step: int) -> bool:
        if strategy == "no":
            return False
        period = self.plan.steps_per_epoch if strategy == "epoch" else every
        return step % period == 0 or step == self.plan.total_steps

    def _evaluate(self, state: State) -> None:
        install(self.layers, state.adapter)
        total, tokens = held_out_loss(
            self.model, self.validation, self.config.per_device_eval_batch_size
        )
        loss = total / tokens
        self.report(
            Evaluated(state.step, self.plan.epoch(state.step), loss, perplexity(loss), tokens)
        )
