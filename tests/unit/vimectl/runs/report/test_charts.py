from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.runs.metric_rows import metrics
from vimectl.runs.report.charts import Chart, Line, charts, downsample
from vimectl.runs.run_log import RunLog


def charts_of(run_dir: Path, row: dict[str, Any]) -> dict[str, Chart]:
    (run_dir / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    log = RunLog(run_dir)
    log.read()
    return {chart.key: chart for chart in charts(log)}


def test_unknown_phase_is_shown_and_phases_sum_to_the_step(tmp_path: Path) -> None:
    row = metrics(1) | {"checkpoint/seconds": 0.1}
    time = charts_of(tmp_path, row)["time"]
    assert [line.name for line in time.lines][-2:] == ["checkpoint", "other"]
    assert sum(line.values[0] or 0.0 for line in time.lines) == pytest.approx(row["step/seconds"], rel=1e-12)


def test_chart_without_any_value_is_left_out(tmp_path: Path) -> None:
    assert list(charts_of(tmp_path, {"step": 1, "train/loss": 0.5})) == ["loss"]


def chart(*columns: list[float | None], stacked: bool = False) -> Chart:
    lines = tuple(Line(f"line {n}", tuple(values), 1) for n, values in enumerate(columns))
    steps = tuple(range(1, len(columns[0]) + 1))
    return Chart("key", "Title", "", steps, lines, stacked=stacked)


def test_few_steps_are_not_downsampled() -> None:
    few = chart([1.0, None, 3.0])
    assert downsample(few, intervals=10) is few


def test_many_steps_keep_ends_peaks_and_gaps() -> None:
    values: list[float | None] = [0.0] * 2000
    values[500], values[1500] = 9.0, -9.0
    values[1000:1100] = [None] * 100
    few = downsample(chart(values, [float(n) for n in range(2000)]), intervals=50)
    assert len(few.steps) <= 50 * 4 + 2
    assert (few.steps[0], few.steps[-1]) == (1, 2000)
    assert few.lines[0].values[few.steps.index(501)] == 9.0
    assert few.lines[0].values[few.steps.index(1501)] == -9.0
    assert None in few.lines[0].values
    assert few.lines[1].values == tuple(step - 1 for step in few.steps)
    assert few.lines[1].smooth
    assert few.lines[1].smooth[few.steps.index(1501)] == 1500  # the mean around it


def test_missing_layer_of_a_stack_is_not_a_gap() -> None:
    assert chart([1.0, 2.0], [None, 1.0], stacked=True).gaps == 0
    assert chart([1.0, 2.0], [None, 1.0]).gaps == 1
