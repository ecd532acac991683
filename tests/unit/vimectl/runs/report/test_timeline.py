from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.runs.metric_rows import sample
from vimectl.runs.report.timeline import StepSamples, read_timeline


@pytest.fixture
def samples(write_run: Callable[..., Path]) -> Callable[[list[Any]], list[StepSamples]]:
    """Return the samples that the page shows of a run with these events."""
    return lambda events: read_timeline(write_run([], events) / "events.jsonl")[1]


def test_samples_of_a_repeated_step_are_the_later_ones(samples: Any) -> None:
    rollout = {"kind": "phase", "phase": "rollout", "step": 2, "steps": 3, "detail": ""}
    events = [rollout, sample(2, response="before"), sample(3), rollout, sample(2, response="after")]
    ((only,),) = [step.shown for step in samples(events)]
    assert only["response"] == "after"


@pytest.mark.parametrize(
    ("steps", "chosen"), [(0, []), (1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (30, [1, 15, 30])]
)
def test_samples_are_of_the_first_the_middle_and_the_last_step(
    samples: Any, steps: int, chosen: list[int]
) -> None:
    assert [step.step for step in samples([sample(n) for n in range(1, steps + 1)])] == chosen


def test_some_of_many_samples_are_shown(samples: Any) -> None:
    (step,) = samples([sample(1, group) for group in range(20)])
    assert (len(step.shown), step.kept) == (8, 20)
