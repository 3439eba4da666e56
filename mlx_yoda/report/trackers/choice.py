"""Which trackers hear of a run, and what becomes of one that fails."""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

from mlx_yoda.config.schema import Config
from mlx_yoda.errors import UserError
from mlx_yoda.report.events import Event, Noted, Reporter

TRACKERS = ("tensorboard", "wandb", "trackio")


def chosen(report_to: str | Sequence[str]) -> list[str]:
    """The trackers' names; "all" means those that are installed, as in Transformers.

    Raises:
        UserError: one that is named is not installed.
    """
    named = [report_to] if isinstance(report_to, str) else list(report_to)
    if named == ["all"]:
        return [name for name in TRACKERS if find_spec(name)]
    named = [name for name in named if name != "none"]
    for name in named:
        if not find_spec(name):
            raise UserError(
                f"train.report_to: {name} is not installed: pip install 'mlx-yoda[{name}]'."
            )
    return named


def open_trackers(config: Config, report: Reporter) -> list[Reporter]:
    """Begin a run with each tracker that `train.report_to` names.

    Args:
        config: the run, which they keep beside its numbers.
        report: told if one of them fails later; the training goes on.

    Raises:
        UserError: one is not installed or cannot begin.
    """
    return [
        _Guarded(
            name, import_module(f"mlx_yoda.report.trackers.{name}").open_tracker(config), report
        )
        for name in chosen(config.train.report_to)
    ]


class _Guarded:
    """A tracker that cannot take the training down with it."""

    def __init__(self, name: str, tracker: Reporter, report: Reporter) -> None:
        self._name, self._tracker, self._report = name, tracker, report
        self._failed = False

    def __call__(self, event: Event) -> None:
        if self._failed:
            return
        try:
            self._tracker(event)
        except Exception as error:  # a library's own, of whatever kind
            self._failed = True
            self._report(Noted(f"{self._name} failed and hears no more of this run: {error}"))
