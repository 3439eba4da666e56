"""A chart's axis: round numbers to mark, and how to write them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """From values to places along an axis.

    Attributes:
        low, high: values at either end; `low < high`.
        start, end: places of these ends, in the drawing's units.
        ticks: the round values to mark, rising, all within the ends.
        step: between two of them.
    """

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    step: float

    def __call__(self, value: float) -> float:
        """The place of a value."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def labels(self) -> list[str]:
        """The ticks as text, all written in the same way."""
        return [label(tick, self.step) for tick in self.ticks]


def axis(
    values: Iterable[float], start: float, end: float, *, parts: int, counts: bool = False
) -> Scale:
    """An axis that holds all values.

    Args:
        values: finite ones.
        start, end: where the axis begins and ends in the drawing.
        parts: about so many intervals between ticks.
        counts: the values are whole numbers: no ticks between them, and the axis ends at the
            smallest and the largest rather than at the next round numbers.
    """
    found = list(values)
    low, high = min(found, default=0.0), max(found, default=1.0)
    if not high - low > 1e-9 * max(abs(low), abs(high)):  # one value: give it room
        room = abs(low) / 2 or 1.0
        low, high = low - room, high + room
    step = round_step(max((high - low) / parts, float(counts)))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [number * step for number in range(first, last + 1)]
    if counts:
        ticks = [tick for tick in ticks if low <= tick <= high]
    else:
        low, high = ticks[0], ticks[-1]
    return Scale(low, high, start, end, tuple(ticks), step)


def round_step(least: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    for factor in (1, 2, 5):
        if factor * power >= least * (1 - 1e-9):
            return factor * power
    return 10 * power


def label(value: float, step: float) -> str:
    """A tick as text: `0`, `0.25`, `12,000`, `3e-5`.

    Args:
        value: a multiple of `step`.
        step: between two ticks, which says how many decimals are needed.
    """
    decimals = -math.floor(math.log10(step) + 1e-9)
    if abs(value) < step / 2:
        return "0"
    if decimals > 4 or decimals < -6:
        digits = max(0, math.floor(math.log10(abs(value)) + 1e-9) + decimals)
        mantissa, exponent = f"{value:.{digits}e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:,.{max(0, decimals)}f}"
