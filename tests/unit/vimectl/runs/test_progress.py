from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from harness.runs.metric_rows import add_lines, metrics
from vimectl.runs.progress import LiveView, PlainView, sparkline
from vimectl.runs.run_log import RunLog
from vimectl.util.console import visible


def row(step: int) -> dict[str, float]:
    figures = {f"{name}/seconds": 1234.5678 for name in ("rollout", "train", "sync")}
    for name in ("train", "rollout"):
        figures |= {f"memory/{name}_active_bytes": 61 * 1024**3, f"memory/{name}_paused_bytes": 2**21}
    return metrics(step) | figures | {"reward/mean": step / 10, "rollout/tokens": 384, "step/seconds": 90.0}


@pytest.fixture
def log(tmp_path: Path) -> RunLog:
    phase = {"kind": "phase", "phase": "rollout", "step": 6, "steps": 500, "detail": ""}
    add_lines(tmp_path / "events.jsonl", phase)
    add_lines(tmp_path / "metrics.jsonl", *map(row, range(1, 6)))
    found = RunLog(tmp_path)
    found.read()
    return found


def test_live_view_fits_80_columns(log: RunLog) -> None:
    view = LiveView("qwen3-tiny-tp2 test")
    view.update(log)
    text = io.StringIO()
    Console(file=text, width=80, force_terminal=True, color_system=None).print(view)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("qwen3-tiny-tp2 test  step 6/500  rollout")
    assert lines[0].endswith("0:00 elapsed, 12:22:30 left")
    assert lines[2] == "reward     0.500  ▁▃▄▆█"
    assert lines[3] == "speed      0 tokens/s, rollout 1234.57 s, train 1234.57 s, sync 1234.57 s"
    assert lines[4] == "memory     trainer 61.0 GiB ↔ 2 MiB, engine 61.0 GiB ↔ 2 MiB (↔ offloaded)"
    assert len(lines) == 6


def test_long_detail_does_not_cut_off_the_clock(log: RunLog) -> None:
    log.detail = "a detail that is too long " * 5
    view = LiveView("qwen3-tiny-tp2 test")
    view.update(log)
    text = io.StringIO()
    Console(file=text, width=100, force_terminal=True, color_system=None).print(view)
    assert text.getvalue().splitlines()[0].endswith("… 0:00 elapsed, 12:22:30 left")


def test_plain_view_prints_each_step_once(log: RunLog) -> None:
    text = io.StringIO()
    view = PlainView(Console(file=text, width=200))
    view.update(log)
    view.update(log)
    lines = text.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == [f"step {n}/500" for n in range(1, 6)]
    assert lines[0].endswith("left 12:22:30")


def test_plain_view_of_a_resumed_run_does_not_repeat_its_steps(log: RunLog, tmp_path: Path) -> None:
    text = io.StringIO()
    view = PlainView(Console(file=text, width=200))
    view.resume(log)
    add_lines(tmp_path / "metrics.jsonl", row(6))
    log.read()
    view.update(log)
    assert [line.split("  ")[0] for line in text.getvalue().splitlines()] == ["step 6/500"]


@pytest.mark.parametrize("text", ["[/INST]", "[/<]", "no file [/model/2013/x.jpg]", "[/b]\x1b[2J\udcff"])
def test_text_of_a_run_is_shown_as_it_is(log: RunLog, text: str) -> None:
    log.phase, log.detail, log.warnings = "save", text, [text]
    log.restarts, log.restart_reason = 1, text
    live = LiveView(text)
    live.update(log)
    for view, count in ((live, 2), (PlainView, 3)):
        out = io.StringIO()
        console = Console(file=out, width=200, force_terminal=True, color_system=None)
        if isinstance(view, LiveView):
            console.print(view)
        else:
            view(console).update(log)
        assert out.getvalue().count(visible(text)) >= count
        assert "\x1b[2J" not in out.getvalue()


def test_sparkline_is_scaled_to_its_range() -> None:
    assert sparkline([0.1, 0.9]) == "▁█"
    assert sparkline([0.5, 0.5]) == "▁▁"
    assert len(sparkline([float(n) for n in range(99)], width=40)) == 40


def add_failures_sets_and_a_warning(run_dir: Path) -> RunLog:
    scores = {"evaluation/score": 0.5, "evaluation/easy/score": 0.75, "evaluation/hard/score": 0.25}
    failures = {"reward/timeouts": 2, "reward/errors": 1, "reward/seconds": 3.21}
    add_lines(run_dir / "metrics.jsonl", row(6) | scores | failures)
    add_lines(run_dir / "events.jsonl", {"kind": "warning", "message": "7 of 90 prompts are skipped"})
    found = RunLog(run_dir)
    found.read()
    return found


def test_live_view_shows_failures_sets_and_the_last_warning(log: RunLog, tmp_path: Path) -> None:
    view = LiveView("qwen3-tiny-tp2 test")
    view.update(add_failures_sets_and_a_warning(tmp_path))
    text = io.StringIO()
    Console(file=text, width=80, force_terminal=True, color_system=None).print(view)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    assert max(map(len, lines)) <= 80
    assert [line.strip() for line in lines[3:6]] == [
        "scoring: 2 timeouts, 1 error",
        "held-out   0.500 at step 6, best 0.500 at step 6",
        "easy 0.750, hard 0.250",
    ]
    assert "reward 3.21 s" in lines[6]
    assert lines[-1] == "warning: 7 of 90 prompts are skipped"


def test_plain_view_prints_failures_and_each_warning_once(log: RunLog, tmp_path: Path) -> None:
    text = io.StringIO()
    view = PlainView(Console(file=text, width=200))
    log = add_failures_sets_and_a_warning(tmp_path)
    view.update(log)
    view.update(log)
    lines = text.getvalue().splitlines()
    assert lines.count("warning: 7 of 90 prompts are skipped") == 1
    assert "  reward 0.600  (scoring: 2 timeouts, 1 error)  evaluation 0.500  " in lines[-1]
    assert all("scoring" not in line for line in lines[:-1])
