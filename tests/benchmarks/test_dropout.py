"""Checkpointing and dropout: our gradients survive; the benchmark tells those that do not."""

import pytest

from benchmarks.dropout import measure


@pytest.fixture(scope="module")
def errors():
    return list(measure((0.0, 0.05, 0.5)))


@pytest.mark.slow
def test_ours_are_exact(errors):
    ours = [e for e in errors if e.contender.startswith("mlx-yoda")]
    assert len(ours) == 18
    assert all(e.error < 1e-5 for e in ours)


def test_peft_on_the_cpu_is_exact(errors):
    theirs = [e for e in errors if e.contender == "Transformers + PEFT, CPU"]
    assert all(e.error < 1e-5 for e in theirs)


def test_mlx_lms_are_exact_without_dropout_only(errors):
    theirs = {e.dropout: e.error for e in errors if e.contender.startswith("mlx-lm")}
    assert theirs[0.0] < 1e-5
    assert theirs[0.05] > 0.1
    assert theirs[0.5] > 0.1


def test_what_is_not_installed_is_said_to_be_so(errors):
    for e in errors:
        assert (e.error is None) == (e.note == "not installed")
