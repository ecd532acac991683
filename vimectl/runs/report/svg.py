"""Draw a chart as SVG. Every colour is a class of the page's style sheet: light and dark are its business.

Only numbers made here and escaped text get into the drawing: it may be put into a page as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from vimectl.runs.report import axis
from vimectl.runs.report.axis import FORMATS, Axis
from vimectl.runs.report.gather import Mark
from vimectl.runs.report.series import Chart, Line, Values

WIDTH, HEIGHT = 380, 208
# The rectangle of the curves.
LEFT, RIGHT, TOP, BASE = 52, WIDTH - 10, 10, HEIGHT - 24
# So few points that each is worth a dot.
DOTS_UP_TO = 40

Point = tuple[float, float]


@dataclass(frozen=True)
class Drawing:
    """An SVG element, and what its points say when pointed at.

    ``xs`` are the points' places from left to right in the drawing's own units; ``texts`` has for each
    point, one a step, the value of each line.
    """

    svg: Markup
    xs: list[float]
    steps: list[int]
    texts: list[list[str]]


def draw(chart: Chart, marks: Sequence[Mark] = ()) -> Drawing:
    """Draw a chart with its axes, and ``marks`` where something happened."""
    layers = _stacked(chart.lines) if chart.stacked else [(line, None, line.values) for line in chart.lines]
    across, up = axis.steps(chart.steps), _vertical(chart, layers)
    canvas = _Canvas(across, up, chart)
    parts = [
        *canvas.grid(),
        *(part for mark in marks for part in canvas.mark(mark)),
        *(part for line, floor, values in layers for part in canvas.line(line, floor, values)),
        f'<line class="cursor" y1="{TOP}" y2="{BASE}" visibility="hidden"/>',
    ]
    label = escape(f"{chart.title}: {_spoken(chart)}")
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    form = FORMATS[chart.unit]
    texts = [
        ["no value" if line.values[i] is None else _text(line, i, form) for line in chart.lines]
        for i in range(len(chart.steps))
    ]
    return Drawing(Markup(svg), [round(canvas.x(step), 1) for step in chart.steps], list(chart.steps), texts)


def _text(line: Line, i: int, form: axis.Format) -> str:
    value, spread = line.values[i] or 0.0, ""
    if line.band and (high := line.band[1][i]) is not None:
        spread = f" ± {form(high - value)}"
    return form(value) + spread


def _spoken(chart: Chart) -> str:
    """The first and the last value in words, for whoever cannot see the curve."""
    form, parts = FORMATS[chart.unit], []
    for line in chart.lines:
        known = [(step, v) for step, v in zip(chart.steps, line.values, strict=True) if v is not None]
        if known:
            (first, a), (last, b) = known[0], known[-1]
            parts.append(f"{line.name} {form(a)} at step {first}, {form(b)} at step {last}")
    return "; ".join(parts)


Layer = tuple[Line, "Values | None", Values]


def _stacked(lines: Sequence[Line]) -> list[Layer]:
    """Each line on top of those before it: (line, lower edge, upper edge). A hole is as high as nothing."""
    layers: list[Layer] = []
    floor: Values = tuple(0.0 for _ in lines[0].values) if lines else ()
    for line in lines:
        top: Values = tuple((f or 0.0) + (v or 0.0) for f, v in zip(floor, line.values, strict=True))
        layers.append((line, floor, top))
        floor = top
    return layers


def _vertical(chart: Chart, layers: Sequence[Layer]) -> Axis:
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
            words = f"{tick:.0f}"
            # A long label at the edge would be cut off.
            anchor = "end" if x > RIGHT - 5 and len(words) > 2 else "middle"
            yield _label(x, HEIGHT - 7, anchor, words)
        yield f'<line class="base" x1="{LEFT}" x2="{RIGHT}" y1="{BASE}" y2="{BASE}"/>'

    def mark(self, mark: Mark) -> Iterator[str]:
        """A line through the chart for a restart, a small triangle on the base for a checkpoint."""
        if not self.across.low <= mark.step <= self.across.high:
            return
        x = self.x(mark.step)
        title = f"<title>{escape(mark.words)}</title>"
        if mark.kind == "restart":
            yield f'<line class="restart" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{BASE}">{title}</line>'
        elif mark.kind == "checkpoint":
            yield f'<path class="checkpoint" d="M{x - 4:.1f} {BASE}h8l-4 -6z">{title}</path>'
        elif mark.kind == "evaluation":
            yield f'<path class="best" d="M{x - 4:.1f} {TOP}h8l-4 6z">{title}</path>'

    def line(self, line: Line, floor: Values | None, values: Values) -> Iterator[str]:
        if line.band:
            for low, high in self._pieces(line.band):
                yield f'<path class="band c{line.colour}" d="{_path([*low, *reversed(high)])}Z"/>'
        if floor is not None:
            for low, high in self._pieces((floor, values)):
                # One step alone has no width: draw it as a bar.
                low, high = (_widened(low), _widened(high)) if len(low) == 1 else (low, high)
                yield f'<path class="area c{line.colour}" d="{_path([*low, *reversed(high)])}Z"/>'
            return
        dashed = " dashed" if line.dashed else ""
        for (points,) in self._pieces((values,)):
            if len(points) > 1:
                weight = "raw" if line.smooth else f"line{dashed}"
                yield f'<path class="{weight} c{line.colour}" d="{_path(points)}"/>'
            if len(points) == 1 or len(values) <= DOTS_UP_TO:
                for x, y in points:
                    yield f'<circle class="dot c{line.colour}" cx="{x:.1f}" cy="{y:.1f}" r="2"/>'
        if line.smooth:
            for (points,) in self._pieces((line.smooth,)):
                yield f'<path class="line c{line.colour}{dashed}" d="{_path(points)}"/>'

    def _pieces(self, columns: Sequence[Values]) -> Iterator[tuple[list[Point], ...]]:
        """Stretches of steps where every column has a value, as points; holes lie between them."""
        piece: list[tuple[Point, ...]] = []
        for step, *values in zip(self.chart.steps, *columns, strict=True):
            if any(v is None for v in values):
                yield from _turned(piece)
                piece = []
            else:
                piece.append(tuple((self.x(step), self.y(v)) for v in values if v is not None))
        yield from _turned(piece)


def _turned(piece: list[tuple[Point, ...]]) -> Iterator[tuple[list[Point], ...]]:
    if piece:
        yield tuple(list(points) for points in zip(*piece, strict=True))


def _widened(points: list[Point]) -> list[Point]:
    ((x, y),) = points
    return [(x - 12, y), (x + 12, y)]


def _label(x: float, y: float, anchor: str, words: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _path(points: Iterable[Point]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
