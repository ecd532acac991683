"""Runs with TP=2 that fail: the summary names what failed, and only a lost process restarts a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.runs.failed_starts import CASES, FailedStart, run_failed_start

# In `make test`: an error of the user, one of an engine worker, and a lost process.
EVERYDAY = ("reward-raises", "engine-worker-raises", "trainer-killed")


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(
            case, id=case.name, marks=pytest.mark.slow if case.name in EVERYDAY else pytest.mark.exhaustive
        )
        for case in CASES
    ],
)
def test_cause_is_the_real_one(case: FailedStart, tmp_path: Path) -> None:
    found = run_failed_start(case, tmp_path)
    assert found.is_right, f"{found}\n{found.output}"
    assert "nanobind" not in "".join(log.read_text() for log in tmp_path.glob("run/logs/*.log"))
