"""Which trackers hear of a run, and that none takes it down."""

import pytest

from mlx_yoda.config.parse import load_config
from mlx_yoda.errors import UserError
from mlx_yoda.report.events import Noted
from mlx_yoda.report.trackers import choice
from mlx_yoda.report.trackers.choice import chosen, open_trackers


@pytest.fixture
def installed(monkeypatch):
    """Only TensorBoard is there."""
    monkeypatch.setattr(choice, "find_spec", lambda name: name == "tensorboard")


@pytest.mark.parametrize(
    ("report_to", "names"),
    [
        ("none", []),
        (["none"], []),
        ([], []),
        ("all", ["tensorboard"]),
        ("tensorboard", ["tensorboard"]),
        (["tensorboard"], ["tensorboard"]),
    ],
)
def test_who_is_told(installed, report_to, names):
    assert chosen(report_to) == names


def test_one_that_is_not_installed_is_said_with_the_command(installed):
    with pytest.raises(UserError, match=r"pip install 'mlx-yoda\[wandb\]'"):
        chosen(["tensorboard", "wandb"])


def test_one_that_nobody_knows_is_refused():
    with pytest.raises(UserError, match="none, all, or any of tensorboard, wandb, trackio"):
        load_config(None, ["train.report_to=[mlflow]"])


def test_one_that_fails_is_left_out_and_the_run_goes_on(monkeypatch, stepped):
    class Broken:
        @staticmethod
        def open_tracker(config):
            return lambda event: 1 / 0

    monkeypatch.setattr(choice, "import_module", lambda name: Broken)
    heard = []
    (tell,) = open_trackers(load_config(None, ["train.report_to=tensorboard"]), heard.append)
    tell(stepped(1))
    tell(stepped(2))
    (note,) = heard
    assert isinstance(note, Noted)
    assert "tensorboard failed and hears no more of this run: division by zero" in note.message
