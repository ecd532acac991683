from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.runs.metric_rows import add_lines, metrics
from vimectl.runs.report.charts import Chart, Line, charts, downsample
from vimectl.runs.run_log import RunLog


def charts_of(run_dir: Path, row: dict[str, Any]) -> dict[str, Chart]:
    add_lines(run_dir / "metrics.jsonl", row)
    log = RunLog(run_dir)
    log.read()
    return {chart.key: chart for chart in charts(log)}


def test_unknown_phase_is_shown_and_phases_sum_to_the_step(tmp_path: Path) -> None:
    row = metrics(1) | {"checkpoint/seconds": 0.1}
    time = charts_of(tmp_path, row)["time"]
    assert [line.name for line in time.lines][-2:] == ["checkpoint", "other"]
    assert sum(line.values[0] or 0.0 for line in time.lines) == pytest.approx(row["step/seconds"], rel=1e-12)
    tops = [line.band[1][0] for line in time.lines if line.band]
    assert tops == sorted(tops)
    assert tops[-1] == pytest.approx(row["step/seconds"], rel=1e-12)


def test_chart_without_any_value_is_left_out(tmp_path: Path) -> None:
    assert list(charts_of(tmp_path, {"step": 1, "train/loss": 0.5})) == ["loss"]


def chart(*columns: list[float | None], stacked: bool = False) -> Chart:
    lines = tuple(Line(f"line {n}", tuple(values), 1) for n, values in enumerate(columns))
    steps = tuple(range(1, len(columns[0]) + 1))
    return Chart("key", "Title", "", steps, lines, stacked=stacked)


def test_few_steps_are_not_downsampled() -> None:
    few = chart([1.0, None, 3.0])
    assert downsample(few, max_points=10) is few


def test_points_of_many_steps_are_means_with_their_range() -> None:
    values: list[float | None] = [1.0, 3.0] * 1000
    values[501] = 43.0
    values[1000:1100] = [None] * 100
    few = downsample(chart(values, [1e308] * 2000), max_points=200)
    assert len(few.steps) == 200
    assert few.steps[-1] == 2000
    line = few.lines[0]
    low, high = line.band or ((), ())
    assert (line.values[0], low[0], high[0]) == (2.0, 1.0, 3.0)
    assert (line.values[50], low[50], high[50]) == (6.0, 1.0, 43.0)
    assert line.values[100] is None
    assert few.lines[1].values[0] is None  # its sum is not finite


def test_missing_layer_of_a_stack_is_not_a_gap() -> None:
    assert chart([1.0, 2.0], [None, 1.0], stacked=True).gaps == 0
    assert chart([1.0, 2.0], [None, 1.0]).gaps == 1
