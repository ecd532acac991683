"""The notice about steps that have not been tested on an NPU, and about what to watch for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vimectl.cli import run_cli
from vimectl.doctor.facts import Facts
from vimectl.doctor.runner import DoctorReport
from vimectl.recipes.resolve import resolve
from vimectl.runs import npu_notice
from vimectl.stacks.catalog import load_stack
from vimectl.util.host import Host

RECIPE = resolve("qwen3-4b-tp2").recipe


def test_only_runs_on_npus_have_a_notice() -> None:
    notice = npu_notice.text(RECIPE)
    for step in npu_notice.UNTESTED_STEPS.values():
        assert f"{step.description}: {step.untested}" in notice
    assert "vimectl doctor --bundle" in notice
    for sign in (
        "rollout.eager=true",
        "[torch_memory_saver.cpp]",
        "logprob/abs_diff_mean",
        "EI0006",
        "aclrtIpc",
    ):
        assert sign in notice
    # Two buckets of 512 MiB; of trainer and engine three communicators of 400 MiB.
    assert "and 2.2 GiB of buckets and communicators" in notice
    assert npu_notice.text(resolve("qwen3-tiny-tp2").recipe) == ""


def test_notice_is_printed_until_a_run_has_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vimectl.runs import launch, preflight

    stack = load_stack("ascend-0.22")
    passing = preflight.Preflight(RECIPE, DoctorReport(stack, (), Facts(Host(), stack)), None, None)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(preflight, "examine", lambda recipe, host, address: passing)
    monkeypatch.setattr(launch, "check_run_inputs", lambda recipe: None)
    result = launch.RunResult({"exit_code": 0, "ok": True}, None)
    monkeypatch.setattr(launch, "launch", lambda plan, doctor, view: result)
    command = ["run", "recipe", "qwen3-4b-tp2", "--run-dir", str(tmp_path / "run"), "--json"]
    assert run_cli(command) == 0
    assert "Not tested on an NPU yet:" in capsys.readouterr().err
    npu_notice.note_completed(RECIPE, result.summary)
    assert run_cli(command) == 0
    assert "tested" not in capsys.readouterr().err


def test_notice_is_in_the_log_and_a_completed_run_is_recorded(launch: Callable[..., Any]) -> None:
    run = launch("cluster.device=npu")
    code, _, err = run.wait()
    assert code == 0, err
    assert (run.run_dir / "logs" / "driver.log").read_text().startswith("Not tested on an NPU yet:\n")
    (marker,) = (run.state / "vimectl" / "npu-path").iterdir()
    assert json.loads(marker.read_text())["summary"]["ok"] is True
