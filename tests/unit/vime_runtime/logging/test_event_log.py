from __future__ import annotations

import json
from pathlib import Path

import pytest
from vime_runtime.__main__ import reporting
from vime_runtime.logging.event_log import EventLog
from vime_runtime.spec.errors import UsageError


def events(run_dir: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]


def test_half_a_line_of_one_that_was_killed_spoils_none_of_ours(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st')
    journal = EventLog(tmp_path, steps=4)
    journal.metrics({"step": 2})
    journal.metrics({"step": 3})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert lines == ['{"step": 1}', '{"st', '{"step": 2}', '{"step": 3}']


def test_a_full_disk_is_an_error_with_the_path(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    journal = EventLog(tmp_path, steps=4)
    with pytest.raises(OSError, match=r"No space left on device: '.*metrics\.jsonl'"):
        journal.metrics({"step": 1})


def test_last_words_that_do_not_fit_on_the_disk_hide_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "events.jsonl").symlink_to("/dev/full")
    journal = EventLog(tmp_path, steps=4)
    with pytest.raises(ValueError, match="odd"), reporting(journal):
        raise ValueError("odd")
    assert "not written: error" in capsys.readouterr().err


def test_the_first_error_is_the_one_that_counts(tmp_path: Path) -> None:
    journal = EventLog(tmp_path, steps=4)
    for message in ("bad", "a consequence"):
        with pytest.raises(UsageError), reporting(journal):
            raise UsageError(message)
    found = [(event["kind"], event.get("error", {}).get("message")) for event in events(tmp_path)]
    assert found == [("error", "bad"), ("ending", None)]


@pytest.mark.parametrize("stopped", [False, True])
def test_an_end_says_whether_the_work_was_done(tmp_path: Path, stopped: bool) -> None:
    journal = EventLog(tmp_path, steps=4)
    try:
        with reporting(journal):
            if stopped:
                raise SystemExit(143)
    except SystemExit:
        pass
    assert [(event["kind"], event["done"]) for event in events(tmp_path)] == [("ending", not stopped)]


def test_rewinding_drops_later_steps_and_what_was_torn(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(f'{{"step": {step}}}\n' for step in (1, 2, 3)) + "\0\0\n[]\n" + '{"step": 2')
    journal = EventLog(tmp_path, 9)
    journal.rewind(2)
    journal.metrics({"step": 3, "again": 1})
    journal.sync()
    journal.close()
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert rows == [{"step": 1}, {"step": 2}, {"step": 3, "again": 1}]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.jsonl", "metrics.jsonl"]


def test_a_run_that_begins_has_nothing_to_drop(tmp_path: Path) -> None:
    journal = EventLog(tmp_path, 9)
    journal.rewind(0)
    journal.close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""
