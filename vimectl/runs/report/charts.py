"""The charts of a run as plain values: which metrics they show, and how many steps become few points."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from vime_runtime.spec import metrics

from vimectl.runs.run_log import RunLog, finite_number, phase_shares

Rows = Sequence[dict[str, Any]]
Values = tuple[float | None, ...]

# In the order in which they follow each other in a step.
PHASES = (metrics.ROLLOUT, metrics.REWARD, metrics.TRAIN, metrics.SYNC, metrics.SLEEP, metrics.WAKE)
# Colors of the page's style sheet: 1 to COLORS, and 0 for the rest of a step.
COLORS = 8
# A chart is about this many pixels wide: more points cannot be distinguished.
MAX_POINTS = 360
# Phases whose share in the time is named above their chart.
NAMED_SHARES = 4


@dataclass(frozen=True)
class Line:
    """One value per step, None where there is none; ``band`` (low, high) is drawn around it."""

    name: str
    values: Values
    color: int
    band: tuple[Values, Values] | None = None
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    """Lines over the same steps. ``key`` identifies the chart in the page.

    The lines of a ``stacked`` chart are on top of each other: the band of each is its area.
    """

    key: str
    title: str
    note: str
    steps: tuple[int, ...]
    lines: tuple[Line, ...]
    unit: Literal["number", "seconds", "bytes"] = "number"
    log: bool = False
    stacked: bool = False

    @property
    def gaps(self) -> int:
        """The number of steps in which a line has no finite value. A layer of a stack may have none."""
        columns = zip(*(line.values for line in self.lines), strict=True)
        return 0 if self.stacked else sum(None in values for values in columns)


def charts(log: RunLog) -> list[Chart]:
    """Return every chart that has at least one value."""
    return [chart for chart in _all_charts(log) if any(_has_value(line.values) for line in chart.lines)]


def _all_charts(log: RunLog) -> Iterator[Chart]:
    rows = log.rows
    steps = tuple(int(row[metrics.STEP]) for row in rows)

    def line(name: str, metric: str, color: int, dashed: bool = False) -> Line:
        return Line(name, _column(rows, metric), color, dashed=dashed)

    yield Chart("reward", "Reward", "mean of the step, band: one standard deviation", steps, (_reward(rows),))
    note = "mean reward of answers to held-out problems"
    yield Chart("evaluation", "Evaluation score", note, tuple(sorted(log.scores)), _scores(log))
    difference = (
        line("mean", metrics.LOGPROB_ABS_DIFF_MEAN, 1),
        line("max", metrics.LOGPROB_ABS_DIFF_MAX, 4, dashed=True),
    )
    note = "engine against trainer, same tokens; log scale"
    yield Chart("logprob", "Log-prob difference", note, steps, difference, log=True)
    for key, title, note, metric, color in (
        ("loss", "Loss", "GRPO", metrics.TRAIN_LOSS, 1),
        ("grad-norm", "Gradient norm", "before clipping", metrics.TRAIN_GRAD_NORM, 5),
        ("entropy", "Entropy", "of the policy, nats per token", metrics.TRAIN_ENTROPY, 2),
        ("kl", "KL divergence", "from the reference, nats per token", metrics.TRAIN_KL, 6),
    ):
        yield Chart(key, title, note, steps, (line(title.lower(), metric, color),))
    note = "tokens, mean of the step, band: 10th to 90th percentile"
    yield Chart("length", "Response length", note, steps, (_lengths(rows),))
    shares = (
        line("responses at the token limit", metrics.RESPONSE_TRUNCATED, 4),
        line("groups of equal rewards", metrics.GROUPS_UNIFORM, 5),
        line("tokens with a clipped ratio", metrics.TRAIN_CLIP_FRACTION, 6),
    )
    known = tuple(line for line in shares if _has_value(line.values))
    yield Chart("shares", "Shares", "of all responses, groups and tokens", steps, known)
    failures = (line("timeouts", metrics.REWARD_TIMEOUTS, 4), line("errors", metrics.REWARD_ERRORS, 3))
    if any(value for line in failures for value in line.values):
        yield Chart("failures", "Scoring failures", "responses without a reward", steps, failures)
    named = list(phase_shares(log).items())[:NAMED_SHARES]
    note = "seconds per step: " + ", ".join(f"{phase} {share:.0%}" for phase, share in named)
    yield Chart("time", "Time by phase", note, steps, _phases(rows), "seconds", stacked=True)
    memory = (
        line("trainer resident", metrics.TRAIN_ACTIVE_BYTES, 1),
        line("trainer offloaded", metrics.TRAIN_PAUSED_BYTES, 1, dashed=True),
        line("engine resident", metrics.ROLLOUT_ACTIVE_BYTES, 2),
        line("engine offloaded", metrics.ROLLOUT_PAUSED_BYTES, 2, dashed=True),
    )
    note = "trainer and engine, while resident and while offloaded"
    yield Chart("memory", "Memory", note, steps, memory, "bytes")
    peak = line("peak", metrics.PEAK_BYTES, 5)
    yield Chart("peak", "Peak memory", "all processes together, so far", steps, (peak,), "bytes")


def _reward(rows: Rows) -> Line:
    mean, std = _column(rows, metrics.REWARD_MEAN), _column(rows, metrics.REWARD_STD)
    pairs = list(zip(mean, std, strict=True))
    low = tuple(None if m is None or s is None else finite_number(m - s) for m, s in pairs)
    high = tuple(None if m is None or s is None else finite_number(m + s) for m, s in pairs)
    return Line("mean", mean, 1, band=(low, high) if _has_value(low) else None)


def _scores(log: RunLog) -> tuple[Line, ...]:
    """Return the evaluation score, and below it that of each set if there are several."""
    steps = sorted(log.scores)
    mean = Line("score", tuple(log.scores[step] for step in steps), 5)
    names = dict.fromkeys(name for step in steps for name in log.set_scores.get(step, {}))
    if len(names) < 2:
        return (mean,)
    lines = [
        Line(name, tuple(log.set_scores.get(step, {}).get(name) for step in steps), i % COLORS + 1)
        for i, name in enumerate(names)
    ]
    return (replace(mean, name="mean", color=0, dashed=True), *lines)


def _lengths(rows: Rows) -> Line:
    low, high = _column(rows, metrics.RESPONSE_LENGTH_P10), _column(rows, metrics.RESPONSE_LENGTH_P90)
    band = (low, high) if _has_value(low) and _has_value(high) else None
    return Line("response length", _column(rows, metrics.RESPONSE_LENGTH), 3, band=band)


def _phases(rows: Rows) -> tuple[Line, ...]:
    """Return the seconds of every phase, known phases first, and the rest of the step.

    Each line is on top of those before it. A gap has no height.
    """
    suffix = metrics.seconds("")
    found = {key.removesuffix(suffix) for row in rows for key in row if key.endswith(suffix)}
    names = [*PHASES, *sorted(found - {*PHASES, metrics.WHOLE_STEP})]
    columns = {name: _column(rows, metrics.seconds(name)) for name in names if name in found}
    whole = _column(rows, metrics.seconds(metrics.WHOLE_STEP))
    columns["other"] = tuple(
        None if total is None else max(0.0, total - sum(v or 0.0 for v in parts))
        for total, *parts in zip(whole, *columns.values(), strict=True)
    )
    lines = []
    floor: Values = (0.0,) * len(rows)
    for i, (name, values) in enumerate(columns.items()):
        top = tuple((f or 0.0) + (v or 0.0) for f, v in zip(floor, values, strict=True))
        color = 0 if name == "other" else i % COLORS + 1
        lines.append(Line(name, values, color, band=(floor, top)))
        floor = top
    return tuple(lines)


def _column(rows: Rows, key: str) -> Values:
    return tuple(finite_number(row.get(key)) for row in rows)


def _has_value(values: Values) -> bool:
    return any(value is not None for value in values)


def downsample(chart: Chart, max_points: int = MAX_POINTS) -> Chart:
    """Return the chart with at most ``max_points`` points, each of them the mean of adjacent steps.

    The band of a curve without one goes from the lowest to the highest value of these steps.
    """
    count = len(chart.steps)
    if count <= max_points:
        return chart
    buckets = [range(n * count // max_points, (n + 1) * count // max_points) for n in range(max_points)]

    def reduce(values: Values, how: Callable[[list[float]], float]) -> Values:
        known = [[value for i in bucket if (value := values[i]) is not None] for bucket in buckets]
        return tuple(finite_number(how(bucket)) if bucket else None for bucket in known)

    def reduce_line(line: Line) -> Line:
        low, high = line.band or (line.values, line.values)
        band = reduce(low, _mean if line.band else min), reduce(high, _mean if line.band else max)
        return replace(line, values=reduce(line.values, _mean), band=band)

    return replace(
        chart,
        steps=tuple(chart.steps[bucket[-1]] for bucket in buckets),
        lines=tuple(map(reduce_line, chart.lines)),
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)  # statistics.fmean raises OverflowError for large values
