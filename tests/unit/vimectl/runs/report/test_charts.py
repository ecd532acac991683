from __future__ import annotations

from harness.runs.metric_rows import metrics
from vimectl.runs.report.charts import charts


def test_seconds_of_an_unknown_phase_are_shown_and_the_rest_adds_up() -> None:
    row = metrics(1) | {"checkpoint/seconds": 0.1}
    (time,) = [chart for chart in charts([row]) if chart.key == "time"]
    assert [line.name for line in time.lines][-2:] == ["checkpoint", "other"]
    assert abs(sum(line.values[0] or 0.0 for line in time.lines) - row["step/seconds"]) < 1e-9


def test_a_chart_without_any_value_is_left_out() -> None:
    assert [chart.key for chart in charts([{"step": 1, "train/loss": 0.5}])] == ["loss"]
