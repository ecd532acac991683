from __future__ import annotations

import json
from pathlib import Path

from vime_runtime.journal import Journal


def test_rewinding_drops_later_steps_and_what_was_torn(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(f'{{"step": {step}}}\n' for step in (1, 2, 3)) + "\0\0\n[]\n" + '{"step": 2')
    journal = Journal(tmp_path, 9)
    journal.rewind(2)
    journal.metrics({"step": 3, "again": 1})
    journal.sync()
    journal.close()
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert rows == [{"step": 1}, {"step": 2}, {"step": 3, "again": 1}]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.jsonl", "metrics.jsonl"]


def test_a_run_that_begins_has_nothing_to_drop(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 9)
    journal.rewind(0)
    journal.close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""
