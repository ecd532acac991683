from __future__ import annotations

import json
from pathlib import Path

from vime_runtime.logging.event_log import EventLog


def events(run_dir: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]


def test_rewind_removes_later_steps_and_incomplete_lines(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(f'{{"step": {step}}}\n' for step in (1, 2, 3)) + "\0\0\n[]\n" + '{"step": 2')
    log = EventLog(tmp_path, 9)
    log.rewind(2)
    log.metrics({"step": 3, "again": 1})
    log.sync()
    log.close()
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert rows == [{"step": 1}, {"step": 2}, {"step": 3, "again": 1}]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.jsonl", "metrics.jsonl"]


def test_rewind_of_a_new_run_leaves_an_empty_file(tmp_path: Path) -> None:
    log = EventLog(tmp_path, 9)
    log.rewind(0)
    log.close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""
