"""Writing checkpoints while training: what fails is tried again, and training goes on."""

from mlx_yoda.config.schema import Config
from mlx_yoda.errors import UserError
from mlx_yoda.lora.binding import Adapter
from mlx_yoda.recipes.output import Output
from mlx_yoda.recipes.overwriting import drop_old, record_writing
from mlx_yoda.report.events import Noted, Reporter, Saved
from mlx_yoda.train.best import Best
from mlx_yoda.train.checkpoint import Identity, rotate, save_checkpoint, save_weights
from mlx_yoda.train.meter import Meter
from mlx_yoda.train.step import State


class Saver:
    """Writes checkpoints into a run's folder.

    Attributes:
        failed: why the last one could not be written, or None; the next step has to try again.
    """

    def __init__(
        self, config: Config, output: Output, identity: Identity, report: Reporter
    ) -> None:
        self.config, self.output = config, output
        self.identity, self.report = identity, report
        self.failed: str | None = None

    def save(self, state: State, meter: Meter, best: Best) -> bool:
        """Write a checkpoint, announce it, and remove old ones; says whether it is on disk.

        Raises:
            UserError: it cannot be written, and `stop_on_save_error` is set.
        """
        try:
            if self.output.restore(self.config):
                self.report(Noted(f"{self.output.path} has lost its config.yaml: written again"))
            path = save_checkpoint(self.output.path, state, meter, best, self.identity)
        except OSError as error:
            self._fail(state.step, _reason(error))
            return False
        self.failed = None
        self.report(Saved(state.step, str(path)))
        try:
            drop_old(self.output.path)
            rotate(self.output.path, self.config.train.save_total_limit, path, best)
        except OSError as error:
            self.report(Noted(f"an old checkpoint cannot be removed: {_reason(error)}"))
        return True

    def save_final(self, adapter: Adapter) -> None:
        """Write the run's adapter.

        Raises:
            UserError: it cannot be written; the checkpoints stay.
        """
        try:
            record_writing(self.output.path)
            save_weights(self.output.path, adapter, self.identity)
            drop_old(self.output.path)
        except OSError as error:
            raise UserError(
                f"the adapter of {self.output.path} cannot be written: {_reason(error)}; put that "
                "right and finish with --resume."
            ) from None

    def _fail(self, step: int, reason: str) -> None:
        message = f"the checkpoint of step {step} cannot be written: {reason}"
        if self.config.train.stop_on_save_error:
            raise UserError(f"{message}; --resume goes on from the last one that was.")
        if reason != self.failed:  # not again at each step of a night
            self.report(Noted(f"{message}; training goes on, and each step tries again"))
        self.failed = reason


class NotSaving:
    """In a `Saver`'s place, in a process that leaves saving to another."""

    failed = None

    def save(self, state: State, meter: Meter, best: Best) -> bool:
        """Save nothing."""
        return False


def _reason(error: OSError) -> str:
    """In the system's words, with the place where a user would look."""
    said = str(error.strerror or error)
    return f"{said} ({error.filename})" if error.filename else said
