"""The best model and early stopping are those of Transformers' own Trainer."""

import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import EarlyStoppingCallback, Trainer, TrainerControl, TrainerState

from mlx_yoda.config.schema import TrainConfig
from mlx_yoda.train.best import Best, greater_is_better, metric_name

VALUES = st.one_of(st.floats(0, 4).map(lambda v: round(v, 1)), st.just(math.nan))


def theirs(values, config):
    """best_metric, best_global_step and patience after each evaluation; step of the stop."""
    args = SimpleNamespace(
        metric_for_best_model="loss",
        greater_is_better=config.greater_is_better,
        save_strategy="steps",
    )
    state, control = TrainerState(), TrainerControl()
    callback = EarlyStoppingCallback(
        config.early_stopping_patience, config.early_stopping_threshold
    )
    trainer = SimpleNamespace(args=args, state=state)
    for step, value in enumerate(values, 1):
        state.global_step = step
        callback.on_evaluate(args, state, control, {"eval_loss": value})
        Trainer._determine_best_metric(trainer, {"eval_loss": value}, None)
        waited = callback.early_stopping_patience_counter
        yield state.best_metric, state.best_global_step, waited, control.should_training_stop
        if control.should_training_stop:
            return


@given(
    st.lists(VALUES, min_size=1, max_size=12),
    st.booleans(),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.15, 0.5]),
)
def test_it_follows_transformers_step_by_step(values, greater, patience, threshold):
    config = TrainConfig(
        greater_is_better=greater,
        early_stopping_patience=patience,
        early_stopping_threshold=threshold,
    )
    best = Best()
    for step, (value, expected) in enumerate(
        zip(values, theirs(values, config), strict=False), start=1
    ):
        best = best.after(value, step, config)
        assert (best.metric, best.step, best.waited, best.exhausted(config)) == expected
        assert Best.of_dict(best.as_dict()) == best


def test_without_patience_it_never_ends():
    best = Best()
    for step in range(1, 50):
        best = best.after(1.0, step, TrainConfig())
    assert not best.exhausted(TrainConfig())
    assert best.waited == 48


def test_a_checkpoint_is_the_best_only_if_it_is_of_the_best_step():
    best = Best().after(2.0, 4, TrainConfig())
    assert best.saving(5).saved is None
    assert best.saving(4).saved == 4
    assert best.saving(4).after(1.0, 6, TrainConfig()).saving(7).saved == 4


@pytest.mark.parametrize(
    ("settings", "name", "greater"),
    [
        ({}, None, False),
        ({"load_best_model_at_end": True}, "loss", False),
        ({"early_stopping_patience": 2}, "loss", False),
        ({"save_strategy": "best"}, "loss", False),
        ({"metric_for_best_model": "eval_perplexity"}, "perplexity", False),
        ({"metric_for_best_model": "exact_match"}, "exact_match", True),
        ({"metric_for_best_model": "chrf", "greater_is_better": False}, "chrf", False),
    ],
)
def test_what_is_the_best(settings, name, greater):
    config = TrainConfig(**settings)
    assert metric_name(config) == name
    assert greater_is_better(config) is greater
