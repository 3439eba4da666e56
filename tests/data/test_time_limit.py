"""Endless code is interrupted; what ends in time is not, and leaves nothing behind."""

import signal
from threading import Thread

import pytest

from mlx_yoda.data.time_limit import time_limit


def spin(rounds: int = 10**9) -> int:
    return sum(1 for _ in range(rounds))


def test_what_computes_for_too_long_is_interrupted() -> None:
    before = signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(TimeoutError, match=r"it takes more than 0\.05 s"), time_limit(0.05):
        spin()
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)
    assert signal.getsignal(signal.SIGVTALRM) is before


def test_what_ends_in_time_goes_on_without_a_limit() -> None:
    with time_limit(0.05):
        assert spin(10) == 10
    assert spin(3_000_000) == 3_000_000  # more than 0.05 s on any machine
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)


def test_other_threads_are_let_alone() -> None:
    done = []

    def work() -> None:
        with time_limit(0.001):
            done.append(spin(300_000))

    thread = Thread(target=work)
    thread.start()
    thread.join()
    assert done == [300_000]
