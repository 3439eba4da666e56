"""The names are those that Transformers' Trainer logs by."""

from transformers.integrations.integration_utils import rewrite_logs

from mlx_yoda.report.events import Evaluated, Finished
from mlx_yoda.report.trackers.logs import logs


def test_the_names_are_transformers(stepped):
    theirs = rewrite_logs(
        {
            **{"loss": 1.25, "grad_norm": 0.5, "learning_rate": 3e-4, "epoch": 1.0},
            "num_input_tokens_seen": 1000,
        }
    )
    step, ours = logs(stepped(10))
    assert step == 10
    assert theirs.items() <= ours.items()
    _, ours = logs(Evaluated(20, 2.0, 0.75, 2.117, 99))
    assert rewrite_logs({"eval_loss": 0.75, "epoch": 2.0}).items() <= ours.items()
    assert "eval/chrf" not in ours
    _, ours = logs(Finished(20, 1.5, 12.0, 4000, 2000, "out"))
    assert ours == rewrite_logs({"train_loss": 1.5, "train_runtime": 12.0})


def test_steps_between_two_logs_are_left_out(stepped):
    assert logs(stepped(11, logged=False)) is None
