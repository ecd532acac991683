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


def test_sets_of_an_evaluation_have_a_line_each(tmp_path: Path) -> None:
    scores = {"evaluation/score": 0.5, "evaluation/easy/score": 0.75, "evaluation/hard/score": 0.25}
    evaluation = charts_of(tmp_path, {"step": 1} | scores)["evaluation"]
    lines = [(line.name, line.values) for line in evaluation.lines]
    assert lines == [("mean", (0.5,)), ("easy", (0.75,)), ("hard", (0.25,))]


def test_metrics_of_newer_runs_have_charts(tmp_path: Path) -> None:
    shares = {"response/truncated": 0.1, "groups/uniform": 0.5, "train/clip_fraction": 0.0, "train/kl": 0.01}
    lengths = {"response/length_p10": 2, "response/length_p90": 9}
    found = charts_of(tmp_path, metrics(1) | shares | lengths | {"reward/timeouts": 0, "reward/errors": 3})
    assert [line.values for line in found["shares"].lines] == [(0.1,), (0.5,), (0.0,)]
    assert found["length"].lines[0].band == ((2.0,), (9.0,))
    assert [line.values for line in found["failures"].lines] == [(0.0,), (3.0,)]
    assert found["time"].note == "seconds per step: rollout 17%, train 17%, sync 17%, sleep 17%"
    assert "kl" in found


def test_no_chart_of_failures_without_one(tmp_path: Path) -> None:
    assert "failures" not in charts_of(tmp_path, metrics(1) | {"reward/timeouts": 0, "reward/errors": 0})


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
