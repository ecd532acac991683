"""Draw a chart as SVG. Colors are classes of the page's style sheet, which has a light and a dark set.

Only numbers that are made here and escaped text get into a drawing, so it can be put into a page as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape
from vime_runtime.spec import events

from vimectl.runs.report import axis
from vimectl.runs.report.axis import FORMATS, Axis
from vimectl.runs.report.charts import Chart, Line, Values
from vimectl.runs.report.report_data import TimelineEvent

WIDTH, HEIGHT = 380, 208
# The rectangle of the curves.
LEFT, RIGHT, TOP, BASE = 52, WIDTH - 10, 10, HEIGHT - 24
# Up to this many points each one gets a dot.
DOTS_UP_TO = 40

Point = tuple[float, float]
# A line with the lower edge of its area, None for a curve, and its upper edge.
Layer = tuple[Line, "Values | None", Values]


@dataclass(frozen=True)
class Drawing:
    """An SVG element, and what the page shows when the user points at it.

    ``xs`` are the positions of the points from left to right in the units of the drawing; ``texts`` has the
    values of all lines for each point, which is one step.
    """

    svg: Markup
    xs: list[float]
    steps: list[int]
    texts: list[list[str]]


def draw(chart: Chart, timeline: Sequence[TimelineEvent] = ()) -> Drawing:
    """Draw a chart with its axes and markers for restarts, checkpoints and best evaluations."""
    layers = _stack(chart.lines) if chart.stacked else [(line, None, line.values) for line in chart.lines]
    canvas = _Canvas(axis.step_axis(chart.steps), _vertical_axis(chart, layers), chart)
    parts = [
        *canvas.grid(),
        *(part for event in timeline for part in canvas.marker(event)),
        *(part for line, floor, values in layers for part in canvas.line(line, floor, values)),
        f'<line class="cursor" y1="{TOP}" y2="{BASE}" visibility="hidden"/>',
    ]
    label = escape(f"{chart.title}: {_spoken(chart)}")
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    texts = [[_value_text(chart, line, i) for line in chart.lines] for i in range(len(chart.steps))]
    return Drawing(Markup(svg), [round(canvas.x(step), 1) for step in chart.steps], list(chart.steps), texts)


def _value_text(chart: Chart, line: Line, i: int) -> str:
    value, form = line.values[i], FORMATS[chart.unit]
    low, high = (line.band[0][i], line.band[1][i]) if line.band else (None, None)
    if value is None or low is None or high is None:
        return "no value" if value is None else form(value)
    return f"{form(value)} ({form(low)} to {form(high)})"


def _spoken(chart: Chart) -> str:
    """Return the first and the last value of each line as text, for screen readers."""
    form, parts = FORMATS[chart.unit], []
    for line in chart.lines:
        known = [(step, v) for step, v in zip(chart.steps, line.values, strict=True) if v is not None]
        if known:
            (first, a), (last, b) = known[0], known[-1]
            parts.append(f"{line.name} {form(a)} at step {first}, {form(b)} at step {last}")
    return "; ".join(parts)


def _stack(lines: Sequence[Line]) -> list[Layer]:
    """Put each line on top of those before it. A gap has no height."""
    layers: list[Layer] = []
    floor: Values = tuple(0.0 for _ in lines[0].values) if lines else ()
    for line in lines:
        top: Values = tuple((f or 0.0) + (v or 0.0) for f, v in zip(floor, line.values, strict=True))
        layers.append((line, floor, top))
        floor = top
    return layers


def _vertical_axis(chart: Chart, layers: Sequence[Layer]) -> Axis:
    bands = [edge for line in chart.lines if line.band for edge in line.band]
    values = [v for column in [*(top for _, _, top in layers), *bands] for v in column if v is not None]
    if chart.log:
        return axis.logarithmic(values)
    if chart.unit == "bytes":
        return axis.bytes_axis(values)
    return axis.linear(values, from_zero=chart.from_zero)


@dataclass(frozen=True)
class _Canvas:
    across: Axis
    up: Axis
    chart: Chart

    def x(self, step: float) -> float:
        return LEFT + self.across.share(step) * (RIGHT - LEFT)

    def y(self, value: float) -> float:
        return BASE - self.up.share(value) * (BASE - TOP)

    def grid(self) -> Iterator[str]:
        form = FORMATS[self.chart.unit]
        for tick in self.up.ticks:
            y = self.y(tick)
            yield f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield _label(LEFT - 6, y + 3.5, "end", form(tick))
        for tick in self.across.ticks:
            x = self.x(tick)
            yield f'<line class="tickmark" x1="{x:.1f}" x2="{x:.1f}" y1="{BASE}" y2="{BASE + 4}"/>'
            text = f"{tick:.0f}"
            # A long label at the edge would be cut off.
            anchor = "end" if x > RIGHT - 5 and len(text) > 2 else "middle"
            yield _label(x, HEIGHT - 7, anchor, text)
        yield f'<line class="base" x1="{LEFT}" x2="{RIGHT}" y1="{BASE}" y2="{BASE}"/>'

    def marker(self, event: TimelineEvent) -> Iterator[str]:
        """Draw a vertical line for a restart, and small triangles for a checkpoint and a best evaluation."""
        if not self.across.low <= event.step <= self.across.high:
            return
        x = self.x(event.step)
        title = f"<title>{escape(event.text)}</title>"
        if event.kind == events.RESTART:
            yield f'<line class="restart" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{BASE}">{title}</line>'
        elif event.kind == events.CHECKPOINT:
            yield f'<path class="checkpoint" d="M{x - 4:.1f} {BASE}h8l-4 -6z">{title}</path>'
        elif event.kind == events.EVALUATION:
            yield f'<path class="best" d="M{x - 4:.1f} {TOP}h8l-4 6z">{title}</path>'

    def line(self, line: Line, floor: Values | None, values: Values) -> Iterator[str]:
        color = f"c{line.color}"
        for low, high in self._segments(line.band) if line.band else ():
            yield f'<path class="band {color}" d="{_path([*low, *reversed(high)])}Z"/>'
        if floor is not None:
            for low, high in self._segments((floor, values)):
                # A single step has no width: draw it as a bar.
                low, high = (_widen(low), _widen(high)) if len(low) == 1 else (low, high)
                yield f'<path class="area {color}" d="{_path([*low, *reversed(high)])}Z"/>'
            return
        for (points,) in self._segments((values,)):
            if len(points) > 1:
                yield f'<path class="line{" dashed" * line.dashed} {color}" d="{_path(points)}"/>'
            if len(points) == 1 or len(values) <= DOTS_UP_TO:
                for x, y in points:
                    yield f'<circle class="dot {color}" cx="{x:.1f}" cy="{y:.1f}" r="2"/>'

    def _segments(self, columns: Sequence[Values]) -> Iterator[list[list[Point]]]:
        """Yield the runs of steps where every column has a value, as one list of points per column."""
        segment: list[list[Point]] = [[] for _ in columns]
        for step, *values in zip(self.chart.steps, *columns, strict=True):
            known = [value for value in values if value is not None]
            if len(known) == len(columns):
                for points, value in zip(segment, known, strict=True):
                    points.append((self.x(step), self.y(value)))
            elif segment[0]:
                yield segment
                segment = [[] for _ in columns]
        if segment[0]:
            yield segment


def _widen(points: list[Point]) -> list[Point]:
    ((x, y),) = points
    return [(x - 12, y), (x + 12, y)]


def _label(x: float, y: float, anchor: str, text: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _path(points: Iterable[Point]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
