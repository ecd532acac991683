"""Compute the positions of what a chart shows; the page's template draws it as SVG.

Colors are classes of the page's style sheet, which has a light and a dark set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from vimectl.runs.report import axis
from vimectl.runs.report.axis import FORMATS, Axis
from vimectl.runs.report.charts import Chart, Line
from vimectl.runs.report.timeline import TimelineEvent

WIDTH, HEIGHT = 380, 208
# The rectangle of the curves.
LEFT, RIGHT, TOP, BASE = 52, WIDTH - 10, 10, HEIGHT - 24
# Up to this many points each one gets a dot.
DOTS_UP_TO = 40

Point = tuple[float, float]


def draw(chart: Chart, timeline: Sequence[TimelineEvent] = ()) -> dict[str, Any]:
    """Place a chart with its axes and the events of its steps, in the units of its view box.

    ``rows`` and ``columns`` are ticks, each a position and a text; ``shapes`` are paths with their classes;
    ``markers`` are events with their positions. ``xs`` are the positions of the ``steps`` from left to right,
    and ``texts`` has the values of all lines for each of them, for the user who points there.
    """
    across, up = axis.whole_axis(chart.steps), _vertical_axis(chart)

    def x(step: float) -> float:
        return round(LEFT + across.share(step) * (RIGHT - LEFT), 1)

    def y(value: float) -> float:
        return round(BASE - up.share(value) * (BASE - TOP), 1)

    def segments(*columns: Sequence[Any]) -> Iterator[list[list[Point]]]:
        """Yield the runs of steps where every column has a value, as one list of points per column."""
        points = zip(chart.steps, *columns, strict=True)
        for is_known, run in groupby(points, key=lambda values: None not in values):
            if is_known:
                steps, *known = zip(*run, strict=True)
                yield [[(x(s), y(v)) for s, v in zip(steps, values, strict=True)] for values in known]

    def shapes(line: Line) -> Iterator[tuple[str, str]]:
        for low, high in segments(*line.band) if line.band else ():
            if chart.stacked and len(low) == 1:
                # A single step has no width: draw it as a bar.
                low, high = ([(left - 12, top), (left + 12, top)] for ((left, top),) in (low, high))
            yield "area" if chart.stacked else "band", f"{_path([*low, *reversed(high)])}Z"
        if chart.stacked:
            return
        for (points,) in segments(line.values):
            if len(points) > 1:
                yield "line dashed" if line.dashed else "line", _path(points)
            if len(points) == 1 or len(line.values) <= DOTS_UP_TO:
                yield "dot", "".join(f"M{left} {top}h0" for left, top in points)

    return {
        "rows": [(y(tick), FORMATS[chart.unit](tick)) for tick in up.ticks],
        "columns": [(x(tick), f"{tick:.0f}") for tick in across.ticks],
        "shapes": [(f"{kind} c{line.color}", path) for line in chart.lines for kind, path in shapes(line)],
        "markers": [(x(event.step), event) for event in timeline if across.low <= event.step <= across.high],
        "xs": [x(step) for step in chart.steps],
        "steps": chart.steps,
        "texts": [[_value_text(chart, line, i) for line in chart.lines] for i in range(len(chart.steps))],
    }


def _vertical_axis(chart: Chart) -> Axis:
    columns = [column for line in chart.lines for column in (line.values, *(line.band or ()))]
    values = [value for column in columns for value in column if value is not None]
    if chart.log:
        return axis.logarithmic(values)
    if chart.unit == "bytes":
        return axis.bytes_axis(values)
    return axis.linear(values, from_zero=chart.stacked)


def _value_text(chart: Chart, line: Line, i: int) -> str:
    value, form = line.values[i], FORMATS[chart.unit]
    low, high = (line.band[0][i], line.band[1][i]) if line.band else (None, None)
    if value is None:
        return "no value"
    if chart.stacked or low is None or high is None:
        return form(value)
    return f"{form(value)} ({form(low)} to {form(high)})"


def _path(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x} {y}" for x, y in points)
