"""What a chart shows, as plain values, and how thousands of steps become as many points as can be seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

Values = tuple[float | None, ...]

# Twice as many stretches as a chart has distinguishable columns would only make the page heavier.
STRETCHES = 180
# With so many steps that they are thinned, the way they go is the mean over this share of them.
SMOOTHED_SHARE = 1 / 50


@dataclass(frozen=True)
class Line:
    """One value a step, None where there is none; ``band`` is drawn around it (low, high).

    ``smooth`` is the way that many noisy steps go. ``colour`` is the number of one of the page's colours.
    """

    name: str
    values: Values
    colour: int
    band: tuple[Values, Values] | None = None
    dashed: bool = False
    smooth: Values | None = None


@dataclass(frozen=True)
class Chart:
    """Lines over the same steps. ``key`` names it in the page."""

    key: str
    title: str
    note: str
    unit: Literal["number", "seconds", "bytes"]
    steps: tuple[int, ...]
    lines: tuple[Line, ...]
    log: bool = False
    stacked: bool = False
    from_zero: bool = False

    @property
    def holes(self) -> int:
        """How many steps have a line without a finite value; what is stacked may have none of some layer."""
        columns = zip(*(line.values for line in self.lines), strict=True)
        return 0 if self.stacked else sum(None in values for values in columns)


def thinned(chart: Chart, stretches: int = STRETCHES) -> Chart:
    """The chart with fewer steps: of every stretch those where a line is lowest and highest."""
    count = len(chart.steps)
    if count <= 2 * stretches:
        return chart
    if not chart.stacked:
        chart = replace(
            chart, lines=tuple(replace(line, smooth=_smoothed(line.values)) for line in chart.lines)
        )
    judged = [_sums(chart.lines)] if chart.stacked else [line.values for line in chart.lines]
    kept = {0, count - 1}
    for n in range(stretches):
        stretch = range(n * count // stretches, (n + 1) * count // stretches)
        for values in judged:
            kept |= _extremes(values, stretch)
    return _take(chart, sorted(kept))


def _extremes(values: Sequence[float | None], stretch: range) -> set[int]:
    known = [(value, i) for i in stretch if (value := values[i]) is not None]
    # A stretch without any value keeps its hole.
    return {min(known)[1], max(known)[1]} if known else {stretch[0]}


def _smoothed(values: Values) -> Values:
    """The mean of the known values around each known one."""
    reach = max(1, round(len(values) * SMOOTHED_SHARE / 2))
    sums, counts = [0.0], [0]
    for value in values:
        sums.append(sums[-1] + (value or 0.0))
        counts.append(counts[-1] + (value is not None))

    def mean(i: int) -> float:
        first, end = max(0, i - reach), min(len(values), i + reach + 1)
        return (sums[end] - sums[first]) / (counts[end] - counts[first])

    return tuple(None if value is None else mean(i) for i, value in enumerate(values))


def _sums(lines: Sequence[Line]) -> Values:
    return tuple(
        sum(v or 0.0 for v in values) for values in zip(*(line.values for line in lines), strict=True)
    )


def _take(chart: Chart, indices: Sequence[int]) -> Chart:
    def of(values: Values) -> Values:
        return tuple(values[i] for i in indices)

    lines = tuple(
        replace(
            line,
            values=of(line.values),
            band=line.band and (of(line.band[0]), of(line.band[1])),
            smooth=line.smooth and of(line.smooth),
        )
        for line in chart.lines
    )
    return replace(chart, steps=tuple(chart.steps[i] for i in indices), lines=lines)
