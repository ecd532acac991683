from __future__ import annotations

import json
from pathlib import Path

import pytest
from vime_runtime.__main__ import report_end
from vime_runtime.logging.event_log import EventLog
from vime_runtime.spec.errors import UsageError


def events(run_dir: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]


def test_a_full_disk_does_not_hide_the_error_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "events.jsonl").symlink_to("/dev/full")
    log = EventLog(tmp_path, steps=4)
    with pytest.raises(ValueError, match="odd"), report_end(log):
        raise ValueError("odd")
    assert "not written: error" in capsys.readouterr().err


def test_only_the_first_error_is_recorded(tmp_path: Path) -> None:
    log = EventLog(tmp_path, steps=4)
    for message in ("bad", "a consequence"):
        with pytest.raises(UsageError), report_end(log):
            raise UsageError(message)
    found = [(event["kind"], event.get("error", {}).get("message")) for event in events(tmp_path)]
    assert found == [("error", "bad"), ("ending", None)]


@pytest.mark.parametrize("stopped", [False, True])
def test_the_ending_event_says_whether_the_work_is_done(tmp_path: Path, stopped: bool) -> None:
    log = EventLog(tmp_path, steps=4)
    try:
        with report_end(log):
            if stopped:
                raise SystemExit(143)
    except SystemExit:
        pass
    assert [(event["kind"], event["done"]) for event in events(tmp_path)] == [("ending", not stopped)]


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
