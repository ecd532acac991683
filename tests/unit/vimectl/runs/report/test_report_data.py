from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.runs.metric_rows import metrics, sample
from vimectl.runs.report.report_data import gather


def test_samples_of_a_repeated_step_are_the_later_ones(write_run: Callable[..., Path]) -> None:
    rollout = {"kind": "phase", "phase": "rollout", "step": 2, "steps": 3, "detail": ""}
    events = [rollout, sample(2, response="before"), sample(3), rollout, sample(2, response="after")]
    ((only,),) = [step.shown for step in gather(write_run([metrics(1)], events)).samples]
    assert only["response"] == "after"


@pytest.mark.parametrize(
    ("steps", "chosen"), [(0, []), (1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (30, [1, 15, 30])]
)
def test_samples_are_of_the_first_the_middle_and_the_last_step(
    write_run: Callable[..., Path], steps: int, chosen: list[int]
) -> None:
    found = gather(write_run([metrics(step) for step in range(1, steps + 1)]))
    assert [step.step for step in found.samples] == chosen


def test_some_of_many_samples_are_shown(write_run: Callable[..., Path]) -> None:
    (step,) = gather(write_run([metrics(1)], [sample(1, group) for group in range(20)])).samples
    assert (len(step.shown), step.kept) == (8, 20)
