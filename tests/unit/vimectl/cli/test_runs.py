from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.runs.metric_rows import add_lines, metrics
from vimectl.cli import run_cli

SUMMARY = {
    "ok": False, "exit_code": 1, "reason": "raylet (pid 7) was killed by SIGKILL", "steps": 2,
    "steps_wanted": 4, "best_step": None, "seconds": 9.0, "reward_first": 0.5, "reward_last": 0.5,
    "restarts": 0,
    "logprob_abs_diff_mean_worst": 0.1, "tokens_per_second_mean": 20.0, "step_seconds_mean": 1.0,
    "sync_seconds_mean": 0.1, "peak_memory_bytes": 1, "last_checkpoint": "checkpoints/step-000002",
}  # fmt: skip


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs: one that failed in its third step, and one that no process owns."""
    monkeypatch.chdir(tmp_path)
    for name in ("failed", "lost"):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        document = {"recipe": {"recipe": {"name": "tiny"}}, "mode": "smoke", "steps": 4, "run_dir": str(run)}
        document |= {"schema": "vimectl.run/1", "scratch_dir": str(tmp_path / "vime-00000000")}
        (run / "resolved.json").write_text(json.dumps(document))
    failed = tmp_path / "runs" / "failed"
    (failed / "summary.json").write_text(json.dumps(SUMMARY))
    add_lines(failed / "metrics.jsonl", metrics(1), metrics(2) | {"reward/mean": 0.5})
    phase = {"kind": "phase", "phase": "train", "step": 3, "steps": 4, "detail": ""}
    process = {"kind": "process", "role": "raylet", "rank": 0, "pid": 2**22 + 1, "node": "elsewhere"}
    add_lines(failed / "events.jsonl", phase, process)
    return tmp_path / "runs"


def test_list_has_state_step_and_reward(
    runs: Path, run_json: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = run_json("runs", "list")
    assert (code, document["schema"]) == (0, "vimectl.runs.list/1")
    found = {run["name"]: run for run in document["runs"]}
    assert {name: run["state"] for name, run in found.items()} == {"failed": "failed", "lost": "lost"}
    assert [found["failed"][key] for key in ("step", "steps_wanted", "reward")] == [2, 4, 0.5]
    assert found["lost"]["reward"] is None
    assert run_cli(["runs", "list", "--dir", str(runs)]) == 0
    assert "failed\ttiny\tfailed\t2/4\t0.500\t" in capsys.readouterr().out
    assert run_cli(["runs", "list", "--dir", str(runs / "none")]) == 0


def test_list_has_the_other_runs_next_to_a_damaged_one(
    runs: Path, run_json: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / "failed" / "resolved.json").write_text('{"recipe": 1, "mode": 2, "steps": 3}')
    code, document = run_json("runs", "list")
    assert (code, [run["name"] for run in document["runs"]]) == (0, ["lost"])
    assert [Path(run["path"]).name for run in document["damaged"]] == ["failed"]
    assert run_cli(["runs", "list", "--dir", str(runs)]) == 0
    shown = capsys.readouterr()
    assert "lost\ttiny\tlost" in shown.out
    assert "failed: a file of the run is damaged" in shown.err


@pytest.mark.usefixtures("runs")
def test_show_has_summary_metrics_processes_and_phase(
    run_json: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    code, document = run_json("runs", "show", "failed")
    assert (code, document["schema"]) == (0, "vimectl.runs.show/1")
    assert (document["state"], document["phase"]) == ("failed", "train")
    assert document["summary"]["reason"] == SUMMARY["reason"]
    assert document["metrics"]["step"] == 2
    assert [(p["role"], p["state"]) for p in document["processes"]] == [("raylet", None)]
    assert run_cli(["runs", "show", "failed"]) == 0
    assert "result\traylet (pid 7) was killed by SIGKILL" in capsys.readouterr().out


@pytest.mark.usefixtures("runs")
def test_stop_does_nothing_for_an_ended_run_and_fails_for_a_lost_one(run_json: Callable[..., Any]) -> None:
    code, document = run_json("runs", "stop", "failed")
    assert (code, document["state"], document["stopped"]) == (0, "failed", False)
    code, document = run_json("runs", "stop", "lost")
    assert (code, document["error"]["kind"]) == (1, "check-failed")
    assert "leftovers" in document["error"]["hint"]


@pytest.mark.parametrize(
    ("options", "page"), [([], "runs/lost/report.html"), (["--out", "p.html"], "p.html")]
)
def test_page_is_in_the_run_directory_or_at_the_given_path(
    runs: Path,
    run_json: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    page: str,
) -> None:
    path = runs.parent / page
    _, document = run_json("runs", "report", "lost", *options)
    assert document == {"schema": "vimectl.runs.report/1", "ok": True, "path": str(path)}
    assert path.read_text().startswith("<!DOCTYPE html>")
    assert [*runs.parent.rglob("*.html")] == [path]
    assert run_cli(["runs", "report", "lost", *options]) == 0
    assert Path(capsys.readouterr().out.strip()).absolute() == path


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["lost", "--out", "no/such/folder/page.html"], "its folder does not exist"),
        (["lst"], "failed, lost"),
    ],
)
def test_unwritable_path_and_unknown_run_are_errors(
    capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    assert run_cli(["runs", "report", *argv]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("runs")
def test_logs_as_text_and_as_json(run_json: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["runs", "logs", "failed", "-f"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("/")[0] for line in lines if line.startswith("step ")] == ["step 1", "step 2"]
    assert lines[-1] == f"ended: {SUMMARY['reason']}"
    code, document = run_json("runs", "logs", "failed")
    assert (code, document["schema"]) == (0, "vimectl.runs.logs/1")
    assert (document["state"], document["lines"]) == ("failed", lines)


def test_removal_is_confirmed_and_all_or_nothing_is_removed(
    runs: Path, run_json: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["runs", "rm", "failed"]) == 2  # no terminal to ask at
    assert "add --yes" in capsys.readouterr().err
    assert run_cli(["runs", "rm", "failed", "no-such-run", "--yes"]) == 2
    capsys.readouterr()
    assert {path.name for path in runs.iterdir()} == {"failed", "lost"}
    code, document = run_json("runs", "rm", "failed", "lost", "failed", "--yes")
    assert (code, document["schema"]) == (0, "vimectl.runs.rm/1")
    assert [one["path"] for one in document["removed"]] == [str(runs / name) for name in ("failed", "lost")]
    assert all(one["bytes"] > 0 for one in document["removed"])
    assert list(runs.iterdir()) == []


def test_show_says_where_the_time_goes_and_what_was_not_scored(
    runs: Path, run_json: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    row = metrics(3) | {"reward/timeouts": 2, "reward/errors": 1, "evaluation/gcd/score": 0.25}
    add_lines(runs / "failed" / "metrics.jsonl", row)
    assert run_cli(["runs", "show", "failed"]) == 0
    out = capsys.readouterr().out
    # Five phases of 0.2 s in a step of 1.2 s.
    assert "time\trollout 17%, train 17%, sync 17%, sleep 17%, wake 17%, other 17%\n" in out
    assert "scoring\t2 responses timed out, 1 failed; they scored 0\n" in out
    assert "evaluation gcd\t0.250 at step 3, 0.250 at best, at step 3\n" in out
    _, document = run_json("runs", "show", "failed")
    assert document["reward_failures"] == {"timeouts": 2, "errors": 1}
    assert sum(document["phase_shares"].values()) == pytest.approx(1)
