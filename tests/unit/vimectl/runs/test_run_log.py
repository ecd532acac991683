from __future__ import annotations

from pathlib import Path

import pytest

from harness.runs.metric_rows import add_lines
from vimectl.runs.run_log import JsonLineFollower, RunLog, append_event, phase_shares, run_statistics


@pytest.fixture
def log(tmp_path: Path) -> RunLog:
    return RunLog(tmp_path)


def test_incomplete_line_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    follower = JsonLineFollower(path)
    assert list(follower.read()) == []
    path.write_text('{"a": 1}\n{"a"')
    assert list(follower.read()) == [(0, {"a": 1})]
    assert list(follower.read()) == []
    with path.open("a") as file:
        file.write(': 2}\nnot JSON\n{"a": 3}\n')
    assert list(follower.read()) == [(9, {"a": 2}), (27, {"a": 3})]


def test_log_has_phase_error_and_rows(tmp_path: Path, log: RunLog) -> None:
    assert not log.read()
    add_lines(
        tmp_path / "events.jsonl",
        {"kind": "phase", "phase": "train", "step": 2, "steps": 9, "detail": "x"},
        {"kind": "sample", "step": 2},
        {"kind": "phase", "phase": "sync"},  # without a step
        {"kind": "evaluation", "step": 1, "score": "high"},
        {"kind": "error", "error": {"message": "m"}},
    )
    add_lines(tmp_path / "metrics.jsonl", {"step": 1}, {"no": "step"})
    assert log.read()
    assert (log.phase, log.step, log.steps, log.detail) == ("train", 2, 9, "x")
    assert log.error == {"message": "m"}
    assert log.rows == [{"step": 1}]
    assert log.scores == {}


def test_restart_drops_what_belongs_to_the_earlier_start(tmp_path: Path, log: RunLog) -> None:
    append_event(tmp_path, "process", role="raylet", rank=0, pid=1, node="here")
    append_event(tmp_path, "ending", done=False)
    append_event(tmp_path, "error", error={"message": "old"})
    append_event(tmp_path, "restart", attempt=0, step=0, reason="resumed")
    log.read()
    assert (log.processes, log.ending, log.error) == ([], False, None)


def test_replaced_metrics_are_read_from_the_start(tmp_path: Path, log: RunLog) -> None:
    add_lines(tmp_path / "metrics.jsonl", {"step": 1}, {"step": 2})
    log.read()
    add_lines(tmp_path / "new", {"step": 1})
    (tmp_path / "new").rename(tmp_path / "metrics.jsonl")
    append_event(tmp_path, "evaluation", step=0, score=0.5, best=False)
    assert log.read()
    assert log.rows == [{"step": 1}]
    assert log.scores == {0: 0.5}


def test_repeated_steps_replace_earlier_rows_and_scores(tmp_path: Path, log: RunLog) -> None:
    path = tmp_path / "metrics.jsonl"
    add_lines(path, *({"step": n, "reward/mean": 0, "evaluation/score": n} for n in range(1, 6)))
    log.read()
    assert log.scores == {n: n for n in range(1, 6)}
    # The run resumes after step 2: the file is truncated and grows again.
    append_event(tmp_path, "phase", phase="rollout", step=3, steps=5, detail="")
    path.write_text("")
    add_lines(path, *({"step": n, "reward/mean": int(n == 3), "evaluation/score": n} for n in range(1, 4)))
    log.read()
    assert [(row["step"], row["reward/mean"]) for row in log.rows] == [(1, 0), (2, 0), (3, 1)]
    assert log.scores == {1: 1, 2: 2, 3: 3}


def test_statistics_ignore_missing_values(tmp_path: Path, log: RunLog) -> None:
    rows = [
        {"reward/mean": 0.25, "rollout/tokens": 30, "rollout/seconds": 2.0, "memory/peak_bytes": 7},
        {"reward/mean": 0.75, "rollout/tokens": None, "rollout/seconds": 2.0, "evaluation/score": 0.5},
        {"reward/mean": "high", "rollout/tokens": 10, "rollout/seconds": 0.0, "evaluation/score": 0.5},
    ]
    rows = [{"step": step, **row} for step, row in enumerate(rows, start=1)]
    add_lines(tmp_path / "metrics.jsonl", *rows)
    log.read()
    assert run_statistics(log) == {
        "reward_first": 0.5,
        "reward_last": 0.5,
        "evaluation_first": 0.5,
        "evaluation_best": 0.5,
        "best_step": 2,
        "step_seconds_mean": None,
        "sync_seconds_mean": None,
        "tokens_per_second_mean": 15.0,
        "logprob_abs_diff_mean_worst": None,
        "peak_memory_bytes": 7,
    }


def test_scores_of_sets_and_warnings_are_kept(tmp_path: Path, log: RunLog) -> None:
    scores = {"evaluation/score": 0.5, "evaluation/easy/score": 0.75, "evaluation/hard/score": 0.25}
    append_event(tmp_path, "evaluation", step=0, score=0.5, best=False, scores=scores)
    append_event(tmp_path, "warning", message="odd")
    add_lines(tmp_path / "metrics.jsonl", {"step": 1, "evaluation/seconds": 1.0} | scores, {"step": 2})
    log.read()
    assert log.set_scores == {0: {"easy": 0.75, "hard": 0.25}, 1: {"easy": 0.75, "hard": 0.25}}
    assert log.warnings == ["odd"]
    append_event(tmp_path, "phase", phase="rollout", step=1)  # again, after a restart
    log.read()
    assert list(log.set_scores) == list(log.scores) == [0]


def test_shares_of_phases_sum_to_one_and_skip_incomplete_rows(tmp_path: Path, log: RunLog) -> None:
    assert phase_shares(log) == {}
    rows = (
        {"step": 1, "step/seconds": 4.0, "rollout/seconds": 1.0, "train/seconds": 2.0},
        {
            "step": 2,
            "step/seconds": 6.0,
            "rollout/seconds": 1.0,
            "train/seconds": 2.0,
            "checkpoint/seconds": 3.0,
        },
        {"step": 3, "rollout/seconds": 100.0},
    )
    add_lines(tmp_path / "metrics.jsonl", *rows)
    log.read()
    expected = {"train": 0.4, "checkpoint": 0.3, "rollout": 0.2, "other": 0.1}
    assert phase_shares(log) == pytest.approx(expected, rel=1e-12)
    assert list(phase_shares(log)) == list(expected)
