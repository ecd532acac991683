from __future__ import annotations

import json
from pathlib import Path

from vimectl.runs.run_log import Journal, LineFollower


def test_half_a_line_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    follower = LineFollower(path)
    assert follower.read() == []
    path.write_text('{"a": 1}\n{"a"')
    assert follower.read() == [{"a": 1}]
    assert follower.read() == []
    with path.open("a") as file:
        file.write(': 2}\n{"a": 3}\n')
    assert follower.read() == [{"a": 2}, {"a": 3}]


def test_a_journal_knows_phase_error_and_rows(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert not journal.read()
    phase = {"kind": "phase", "phase": "train", "step": 2, "steps": 9, "detail": "x"}
    sample = {"kind": "sample", "step": 2}
    error = {"kind": "error", "error": {"message": "m"}}
    (tmp_path / "events.jsonl").write_text("\n".join(map(json.dumps, (phase, sample, error))) + "\n")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    assert journal.read()
    assert (journal.phase, journal.step, journal.steps, journal.detail) == ("train", 2, 9, "x")
    assert journal.error == {"message": "m"}
    assert journal.rows == [{"step": 1}]


def test_a_run_that_goes_on_from_an_earlier_step_starts_its_metrics_anew(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    metrics, events = tmp_path / "metrics.jsonl", tmp_path / "events.jsonl"
    metrics.write_text('{"step": 1}\n{"step": 2}\n')
    events.write_text('{"kind": "error", "error": {"message": "m"}}\n')
    journal.read()
    assert journal.error is not None
    (tmp_path / "new").write_text('{"step": 1}\n')
    (tmp_path / "new").rename(metrics)
    start = {"kind": "restart", "attempt": 0, "step": 2, "reason": "resumed"}
    score = {"kind": "evaluation", "step": 0, "score": 0.5, "best": False}
    with events.open("a") as file:
        file.write(json.dumps(start) + "\n" + json.dumps(score) + "\n")
    assert journal.read()
    assert journal.rows == [{"step": 1}]
    assert journal.error is None
    assert journal.scores == {0: 0.5}


def test_rows_of_steps_that_are_done_again_replace_the_earlier_ones(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(f'{{"step": {n}, "reward/mean": 0}}\n' for n in range(1, 6)))
    journal = Journal(tmp_path)
    journal.read()
    # The run goes on from step 2: the file is cut back and grows again.
    metrics.write_text(
        '{"step": 1, "reward/mean": 0}\n{"step": 2, "reward/mean": 0}\n{"step": 3, "reward/mean": 1}\n'
    )
    journal.read()
    assert [(row["step"], row["reward/mean"]) for row in journal.rows] == [(1, 0), (2, 0), (3, 1)]
