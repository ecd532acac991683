"""Axes with round numbers on them: linear, in bytes, and logarithmic."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vimectl.util.units import size

# Fewer ticks than this are read at a glance.
TICKS = 5


@dataclass(frozen=True)
class Axis:
    """A range of values, the ticks in it, and whether distances are ratios."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies: 0 at the low end, 1 at the high end; what lies outside is put on the edge."""
        if self.log:
            low, high, value = math.log(self.low), math.log(self.high), math.log(max(value, self.low))
        else:
            low, high = self.low, self.high
        return min(max((value - low) / (high - low), 0.0), 1.0)


def linear(values: Sequence[float], unit: float = 1.0, from_zero: bool = False) -> Axis:
    """An axis that holds all values; ticks are round multiples of ``unit``. Without values: 0 to 1."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= abs(high) * 1e-9:  # one value, or rounding: no range to speak of
        margin = abs(high) / 2 or unit
        low, high = (0.0, high + margin) if from_zero else (low - margin, high + margin)
    step = _round_step((high / TICKS - low / TICKS) / unit) * unit  # their difference may overflow
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    count = round((high - low) / step)
    return Axis(low, high, tuple(low + i * step for i in range(count + 1)))


def bytes_axis(values: Sequence[float]) -> Axis:
    """From zero up, ticks at round numbers of the unit that the largest value is read in."""
    largest = max(values, default=1.0)
    unit = next((u for u in (1024.0**3, 1024.0**2, 1024.0) if largest >= u), 1.0)
    return linear(values, unit, from_zero=True)


def logarithmic(values: Sequence[float]) -> Axis:
    """Whole decades around the positive values; zeros lie on the lower edge. Linear when all are zero."""
    positive = [value for value in values if value > 0]
    if not positive:
        return linear(values, from_zero=True)
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    low, high = max(low, -300), min(high, 300)
    if high <= low:
        high = low + 1
    every = -(-(high - low) // TICKS)
    return Axis(10.0**low, 10.0**high, tuple(10.0**e for e in range(low, high + 1, every)), log=True)


def steps(values: Sequence[float]) -> Axis:
    """The axis of step numbers: exactly from the first to the last, ticks at whole steps."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high == low:
        return Axis(low - 1, high + 1, (low,))
    every = max(1.0, _round_step((high - low) / TICKS))
    every = math.ceil(every)
    ticks = [float(t) for t in range(math.ceil(low / every) * every, math.floor(high) + 1, every)]
    if low not in ticks and (not ticks or ticks[0] - low >= every / 2):
        ticks.insert(0, low)
    return Axis(low, high, tuple(ticks))


def plain(value: float) -> str:
    """A number with three digits that matter: ``0.436``, ``12.5``, ``2.3e-05``, ``1,234``."""
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e6:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def seconds(value: float) -> str:
    """Seconds with their unit."""
    return f"{plain(value)} s"


Format = Callable[[float], str]
FORMATS: dict[str, Format] = {"number": plain, "seconds": seconds, "bytes": size}


def _round_step(rough: float) -> float:
    """The smallest of 1, 2, 2.5, 5 and 10 times a power of ten that is at least ``rough``."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * (1 - 1e-9))
