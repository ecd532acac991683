"""The table of what is proven of the NPU path: its data, its page, and what a run says of it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vimectl.cli import run_cli
from vimectl.recipes.resolve import resolve
from vimectl.runs import npu_path

ROOT = Path(__file__).resolve().parents[4]
RECIPE = resolve("qwen3-4b-tp2").recipe


def test_every_named_test_exists() -> None:
    functions: dict[str, set[str]] = {}
    for test in npu_path.named_tests():
        file, _, name = test.partition("::")
        if file not in functions:
            tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            functions[file] = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert name in functions[file], test


def test_what_is_removed_to_try_a_test_is_there_once() -> None:
    for item in npu_path.path().item:
        for removal in item.removal:
            text = (ROOT / removal.file).read_text(encoding="utf-8")
            assert text.count(removal.text) == 1, f"{item.id}: {removal.text!r} in {removal.file}"


def test_the_page_is_what_the_data_say() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "npu_proof.py"), "--check"]
    assert subprocess.run(command, cwd=ROOT).returncode == 0, "run python scripts/npu_proof.py"


def test_what_is_unproven_is_little() -> None:
    steps = npu_path.unproven()
    assert 0 < len(steps) <= 12
    assert sum(len(step.unproven) for step in steps) < 900


def test_only_a_run_on_npus_says_what_is_unproven() -> None:
    notice = npu_path.notice(RECIPE)
    for step in npu_path.unproven():
        assert f"{step.does}: {step.unproven}" in notice
    assert "vimectl doctor --bundle" in notice
    assert npu_path.notice(resolve("qwen3-tiny-tp2").recipe) == ""


def test_a_run_on_npus_says_it_until_one_has_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command itself, up to where the runtime would be launched."""
    from vimectl.runs import launch, preflight

    class Well:
        only_lacks_patches = meets_an_ending = False

        def require(self) -> None: ...

        @property
        def doctor(self) -> Any:
            return self

        def as_json(self) -> dict[str, Any]:
            return {}

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(preflight, "examine", lambda recipe, host: Well())
    monkeypatch.setattr(launch, "check_run_inputs", lambda recipe: None)
    ended = launch.Ended(0, {"recipe": "r", "ok": True, "steps": 1, "seconds": 1.0}, None, "")
    monkeypatch.setattr(launch, "launch", lambda plan, doctor, progress: ended)
    command = ["run", "recipe", "qwen3-4b-tp2", "--run-dir", str(tmp_path / "run"), "--json"]
    assert run_cli(command) == 0
    assert "What no NPU has proven yet:" in capsys.readouterr().err
    npu_path.note_completed(RECIPE, ended.summary)
    assert run_cli(command) == 0
    assert "proven" not in capsys.readouterr().err


def test_the_list_is_in_the_log_of_the_run_and_a_completed_run_is_remembered(
    launch: Callable[..., Any],
) -> None:
    run = launch("cluster.device=npu")
    code, _, err = run.wait()
    assert code == 0, err
    assert (run.run_dir / "logs" / "driver.log").read_text().startswith("What no NPU has proven yet:\n")
    (marker,) = (run.state / "vimectl" / "npu-path").iterdir()
    assert json.loads(marker.read_text())["summary"]["ok"] is True
