"""Limits of time that hold on a machine of any speed, and on a busy one."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE = 900  # seconds for another process to get somewhere; a net for what hangs
_USUAL = 0.02  # seconds of the work below on a core of its own


def slowness(clock: Callable[[], float]) -> float:
    """The time of a fixed piece of work over a usual machine's, at least 1; the worst of five."""
    times = []
    for _ in range(5):
        start = clock()
        _ = [str(number) for number in range(100_000)]
        times.append(clock() - start)
    return max(1.0, max(times) / _USUAL)


def wait_until(condition: Callable[[], bool]) -> None:
    """Look again and again, until it is so."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it does not come to be so"
        time.sleep(0.01)


@contextmanager
def within(seconds: float, clock: Callable[[], float] = time.process_time) -> Iterator[None]:
    """Assert that the block takes less than these seconds of a usual machine.

    Args:
        seconds: on a machine with a core of its own for this process.
        clock: processor time, or the wall's where the block waits for others.
    """
    start = clock()
    yield
    check_time(clock() - start, seconds, clock)


def check_time(took: float, seconds: float, clock: Callable[[], float]) -> None:
    """Assert what `within` does; the machine's speed is measured only where it matters."""
    assert took < seconds or took < seconds * slowness(clock), f"{took:.1f} s"
