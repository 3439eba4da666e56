"""Weights & Biases, online or, with WANDB_MODE=offline, in `wandb/` here."""

import os
from dataclasses import asdict
from pathlib import Path

import wandb

from mlx_yoda.config.schema import Config
from mlx_yoda.errors import UserError
from mlx_yoda.report.events import Event, Finished
from mlx_yoda.report.redaction import clean
from mlx_yoda.report.trackers.logs import logs


class Wandb:
    """A reporter to a run there; WANDB_PROJECT and wandb's other variables count as ever.

    Raises:
        UserError: wandb cannot begin a run, most likely because nobody is logged in.
    """

    def __init__(self, config: Config) -> None:
        train = config.train
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or train.project,
                name=train.run_name or Path(train.output_dir).name,
                config=clean(asdict(config)),
            )
        except wandb.errors.Error as error:
            raise UserError(
                f"train.report_to: wandb cannot start ({error}); log in with `wandb login`, or set "
                "the environment's WANDB_MODE=offline."
            ) from None
        self._run.define_metric("train/global_step")
        self._run.define_metric("*", step_metric="train/global_step", step_sync=True)

    def __call__(self, event: Event) -> None:
        """Log the numbers of an event; those of the end go to the summary."""
        if not (found := logs(event)):
            return
        step, numbers = found
        if isinstance(event, Finished):
            self._run.summary.update({n.removeprefix("train/"): v for n, v in numbers.items()})
            self._run.finish()
        else:
            self._run.log({**numbers, "train/global_step": step})


open_tracker = Wandb
