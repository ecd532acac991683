from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.runs.metric_rows import metrics, sample
from vimectl.runs.report.gather import gather


def test_of_a_step_done_twice_the_later_counts(write_run: Callable[..., Path]) -> None:
    rollout = {"kind": "phase", "phase": "rollout", "step": 2, "steps": 3, "detail": ""}
    events = [rollout, sample(2, response="before"), sample(3), rollout, sample(2, response="after")]
    rows = [
        metrics(1),
        metrics(2) | {"train/loss": 1.0},
        metrics(9),
        metrics(2) | {"train/loss": 2.0},
        metrics(3),
    ]
    run = gather(write_run(rows, events))
    assert [row["step"] for row in run.rows] == [1, 2, 3]
    assert run.rows[1]["train/loss"] == 2.0
    ((only,),) = [step.shown for step in run.samples]
    assert only["response"] == "after"


@pytest.mark.parametrize(
    ("steps", "chosen"), [(0, []), (1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (30, [1, 15, 30])]
)
def test_the_first_the_middle_and_the_last_step_are_sampled(
    write_run: Callable[..., Path], steps: int, chosen: list[int]
) -> None:
    run = gather(write_run([metrics(step) for step in range(1, steps + 1)]))
    assert [step.step for step in run.samples] == chosen


def test_scores_come_from_events_and_metrics(write_run: Callable[..., Path]) -> None:
    def told(step: int, score: object) -> dict[str, object]:
        return {"kind": "evaluation", "step": step, "score": score, "best": False}

    events = [told(0, 0.1), told(3, 0.9), {"kind": "phase", "phase": "rollout", "step": 2}, told(4, "high")]
    run = gather(write_run([metrics(1), metrics(2) | {"evaluation/score": 0.2}], events))
    assert run.scores == {0: 0.1, 2: 0.2}


def test_of_many_responses_some_are_shown(write_run: Callable[..., Path]) -> None:
    (step,) = gather(write_run([metrics(1)], [sample(1, group) for group in range(20)])).samples
    assert (len(step.shown), step.kept) == (8, 20)
