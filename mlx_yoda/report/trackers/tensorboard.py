"""TensorBoard: event files in `<output_dir>/runs/`, as Transformers puts them."""

import os
import socket
from datetime import datetime
from pathlib import Path

from tensorboard.summary import Writer

from mlx_yoda.config.schema import Config
from mlx_yoda.report.events import Event, Finished
from mlx_yoda.report.trackers.logs import logs


class TensorBoard:
    """A reporter that writes scalars; `tensorboard --logdir <output_dir>` shows them.

    The folder is that of the environment's TENSORBOARD_LOGGING_DIR, if it is set.
    """

    def __init__(self, config: Config) -> None:
        now = datetime.now().strftime("%b%d_%H-%M-%S")
        own = Path(config.train.output_dir) / "runs" / f"{now}_{socket.gethostname()}"
        self._folder = os.environ.get("TENSORBOARD_LOGGING_DIR") or str(own)
        self._writer: Writer | None = None

    def __call__(self, event: Event) -> None:
        """Write the numbers of an event, at once."""
        if found := logs(event):
            step, numbers = found
            self._writer = self._writer or Writer(self._folder)
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, step)
            self._writer.flush()
        if isinstance(event, Finished) and self._writer:
            self._writer.close()


open_tracker = TensorBoard
