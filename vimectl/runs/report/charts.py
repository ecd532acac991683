"""Which charts a run has: from rows of metrics to charts, one place that knows the keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vimectl.runs.report.gather import number
from vimectl.runs.report.series import Chart, Line, Values

Rows = Sequence[dict[str, Any]]

# In the order in which they follow each other in a step.
PHASES = ("rollout", "train", "sync", "sleep", "wake")
COLOURS = 8


def charts(rows: Rows, scores: Mapping[int, float] | None = None) -> list[Chart]:
    """Every chart for which there is at least one value; ``scores`` are those of the evaluation by step."""
    steps = tuple(int(row["step"]) for row in rows)
    return [
        chart for chart in _all(rows, steps, scores or {}) if any(_known(line.values) for line in chart.lines)
    ]


def _all(rows: Rows, steps: tuple[int, ...], scores: Mapping[int, float]) -> Iterator[Chart]:
    yield Chart(
        "reward",
        "Reward",
        "mean of the step, band: one standard deviation",
        "number",
        steps,
        (_reward(rows),),
    )
    if scores:
        yield Chart(
            "evaluation",
            "Evaluation score",
            "held-out problems, greedy decoding",
            "number",
            tuple(scores),
            (Line("score", tuple(scores.values()), 5),),
        )
    yield Chart(
        "logprob",
        "Log-prob difference",
        "engine against trainer, same tokens; log scale",
        "number",
        steps,
        (
            Line("mean", _column(rows, "logprob/abs_diff_mean"), 1),
            Line("max", _column(rows, "logprob/abs_diff_max"), 4, dashed=True),
        ),
        log=True,
    )
    for key, title, note, column, colour in (
        ("loss", "Loss", "GRPO", "train/loss", 1),
        ("grad-norm", "Gradient norm", "before clipping", "train/grad_norm", 5),
        ("entropy", "Entropy", "of the policy, nats a token", "train/entropy", 2),
        ("length", "Response length", "tokens, mean of the step", "response/length", 3),
    ):
        yield Chart(key, title, note, "number", steps, (Line(title.lower(), _column(rows, column), colour),))
    yield Chart(
        "time",
        "Time by phase",
        "seconds a step, stacked",
        "seconds",
        steps,
        _phases(rows),
        stacked=True,
        from_zero=True,
    )
    yield Chart("memory", "Memory by side", "awake and paused", "bytes", steps, _sides(rows), from_zero=True)
    yield Chart(
        "peak",
        "Peak memory",
        "all processes together, so far",
        "bytes",
        steps,
        (Line("peak", _column(rows, "memory/peak_bytes"), 5),),
        from_zero=True,
    )


def _reward(rows: Rows) -> Line:
    mean, std = _column(rows, "reward/mean"), _column(rows, "reward/std")
    pairs = list(zip(mean, std, strict=True))
    low = tuple(None if m is None or s is None else number(m - s) for m, s in pairs)
    high = tuple(None if m is None or s is None else number(m + s) for m, s in pairs)
    return Line("mean", mean, 1, band=(low, high) if _known(low) else None)


def _phases(rows: Rows) -> tuple[Line, ...]:
    """Every phase that has seconds, and the rest of the step; phases unknown here come after the known."""
    found = {key.removesuffix("/seconds") for row in rows for key in row if key.endswith("/seconds")}
    names = [*PHASES, *sorted(found - {*PHASES, "step"})]
    columns = {name: _column(rows, f"{name}/seconds") for name in names if name in found}
    lines = [Line(name, values, i % COLOURS + 1) for i, (name, values) in enumerate(columns.items())]
    whole = _column(rows, "step/seconds")
    other = tuple(
        None if total is None else max(0.0, total - sum(v or 0.0 for v in parts))
        for total, *parts in zip(whole, *columns.values(), strict=True)
    )
    return (*lines, Line("other", other, 0))


def _sides(rows: Rows) -> tuple[Line, ...]:
    return tuple(
        Line(f"{name} {state}", _column(rows, f"memory/{side}_{key}_bytes"), colour, dashed=key == "paused")
        for side, name, colour in (("train", "trainer", 1), ("rollout", "engine", 2))
        for key, state in (("active", "awake"), ("paused", "paused"))
    )


def _column(rows: Rows, key: str) -> Values:
    return tuple(number(row.get(key)) for row in rows)


def _known(values: Values) -> bool:
    return any(value is not None for value in values)
