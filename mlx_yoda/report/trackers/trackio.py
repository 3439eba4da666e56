"""trackio: a local database that `trackio show` puts on a page."""

from dataclasses import asdict
from pathlib import Path

import trackio

from mlx_yoda.config.schema import Config
from mlx_yoda.report.events import Event, Finished
from mlx_yoda.report.redaction import clean
from mlx_yoda.report.trackers.logs import logs


class Trackio:
    """A reporter to a run there; trackio's own variables, such as TRACKIO_DIR, count as ever."""

    def __init__(self, config: Config) -> None:
        train = config.train
        self._run = trackio.init(
            project=train.project,
            name=train.run_name or Path(train.output_dir).name,
            config=clean(asdict(config)),
            resume="allow",
        )

    def __call__(self, event: Event) -> None:
        """Log the numbers of an event."""
        if found := logs(event):
            step, numbers = found
            self._run.log(numbers, step=step)
        if isinstance(event, Finished):
            self._run.finish()


open_tracker = Trackio
