"""The project file is the stack of every command that takes one; an option beats it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vimectl.stacks.catalog import PROJECT_FILE

COMMANDS = {
    "doctor": ["doctor", "--only", "python.version"],
    "tms": ["tms", "verify"],
    "image": ["image", "plan"],
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project file of the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VIMECTL_STACK", raising=False)
    file = tmp_path / PROJECT_FILE
    file.write_text('extends = "cpu-0.32"\n[stack]\nname = "ours"\n')
    return file


@pytest.mark.parametrize("command", COMMANDS)
def test_project_is_the_default_and_an_option_beats_it(
    project: Path, run_json: Callable[..., Any], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_json(*COMMANDS[command])[1]["stack"] == "ours"
    assert run_json(*COMMANDS[command], "--stack", "cpu-0.32")[1]["stack"] == "cpu-0.32"
    project.write_text("[patches]\n")
    code, document = run_json(*COMMANDS[command])
    assert (code, "extends no stack" in document["error"]["message"]) == (2, True)
    monkeypatch.setenv("VIMECTL_STACK", "cpu-0.32")
    assert run_json(*COMMANDS[command])[1]["stack"] == "cpu-0.32"


def test_doctor_says_what_the_project_extends(project: Path, run_json: Callable[..., Any]) -> None:
    assert run_json(*COMMANDS["doctor"])[1]["extends"] == "cpu-0.32"


def test_environment_is_not_made_from_a_lock_with_other_versions(
    project: Path, run_json: Callable[..., Any]
) -> None:
    project.write_text('extends = "cpu-0.32"\n[packages]\nray = "2.61.0"\n')
    code, document = run_json("env", "create", "new")
    assert (code, "wants ray 2.61.0" in document["error"]["message"]) == (2, True)
    assert str(project.with_suffix(".txt")) in document["error"]["hint"]
    assert not Path("new").exists()


def test_command_that_needs_a_stack_says_how_to_name_one(project: Path, run_json: Callable[..., Any]) -> None:
    project.unlink()
    code, document = run_json("image", "plan")
    assert (code, "vimectl init" in document["error"]["hint"]) == (2, True)
