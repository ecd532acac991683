"""Axes with round ticks, and short texts for the numbers on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vimectl.util.units import size

# About this many ticks fit on an axis.
TICKS = 5
# Smaller values count as zero: their fractions may not be representable.
TINY = 1e-300


@dataclass(frozen=True)
class Axis:
    """A range of values and the ticks in it."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def share(self, value: float) -> float:
        """Return the position of a value: 0 at the low end, 1 at the high end; outside it is clipped."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(max(value, low))
        return min(max((value - low) / (high - low), 0.0), 1.0)


def linear(values: Sequence[float], unit: float = 1.0, from_zero: bool = False) -> Axis:
    """Return an axis for all values, with ticks at round multiples of ``unit``; 0 to 1 without values."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= max(abs(high) * 1e-9, TINY):  # one value, or values that differ by rounding only
        margin = abs(high) / 2 if abs(high) > TINY else unit
        low, high = (0.0, high + margin) if from_zero else (low - margin, high + margin)
    step = _round_step((high / TICKS - low / TICKS) / unit) * unit  # high - low may overflow
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    count = round((high - low) / step)
    return Axis(low, high, tuple(low + i * step for i in range(count + 1)))


def bytes_axis(values: Sequence[float]) -> Axis:
    """Return an axis from zero, with ticks at round numbers of the unit of the largest value."""
    largest = max(values, default=1.0)
    unit = next((u for u in (1024.0**3, 1024.0**2, 1024.0) if largest >= u), 1.0)
    return linear(values, unit, from_zero=True)


def logarithmic(values: Sequence[float]) -> Axis:
    """Return an axis of whole decades around the positive values; linear if there are none."""
    exponents = [math.log10(min(max(value, TINY), 1e300)) for value in values if value > 0]
    if not exponents:
        return linear(values, from_zero=True)
    decades = whole_axis([math.floor(min(exponents)), math.ceil(max(exponents))])
    low, high, *ticks = (10.0**exponent for exponent in (decades.low, decades.high, *decades.ticks))
    return Axis(low, high, tuple(ticks), log=True)


def whole_axis(values: Sequence[float]) -> Axis:
    """Return an axis from exactly the lowest to the highest value, with ticks at whole numbers."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high == low:
        return Axis(low - 1, high + 1, (low,))
    every = math.ceil(max(1.0, _round_step((high - low) / TICKS)))
    ticks = [float(t) for t in range(math.ceil(low / every) * every, math.floor(high) + 1, every)]
    if low not in ticks and (not ticks or ticks[0] - low >= every / 2):
        ticks.insert(0, low)
    return Axis(low, high, tuple(ticks))


def format_number(value: float) -> str:
    """Return a number with three significant digits: ``0.436``, ``12.5``, ``2.3e-5``, ``1,234``."""
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def format_seconds(value: float) -> str:
    """Return seconds with their unit."""
    return f"{format_number(value)} s"


FORMATS: dict[str, Callable[[float], str]] = {
    "number": format_number,
    "seconds": format_seconds,
    "bytes": size,
}


def _round_step(rough: float) -> float:
    """Return the smallest of 1, 2, 2.5, 5 and 10 times a power of ten that is at least ``rough``."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * (1 - 1e-9))
