"""Exit codes and JSON of `stack`, `env`, `doctor` and `tms`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from vimectl.cli import run_cli


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, dict[str, Any]]:
    code = run_cli([*argv, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_stack_list_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    code, document = run(capsys, "stack", "list")
    assert (code, document["schema"], document["ok"]) == (0, "vimectl.stack.list/1", True)
    proven = {stack["name"]: stack["proven"] for stack in document["stacks"]}
    assert (proven["cpu-0.32"], proven["ascend-0.22"], proven["ascend-0.11"]) == (True, True, False)
    code, document = run(capsys, "stack", "show", "cpu-0.32")
    assert (code, document["stack"]["packages"]["vllm"]) == (0, "0.32.0")


def test_system_libraries_of_a_stack_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["stack", "show", "cpu-0.32"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("libnuma.so.1"))
    assert "apt-get install libnuma1" in line


def test_unknown_stack_is_bad_input(capsys: pytest.CaptureFixture[str]) -> None:
    code, document = run(capsys, "stack", "show", "cpu-0.33")
    assert (code, document["ok"], document["error"]["kind"]) == (2, False, "bad-input")
    assert "cpu-0.32" in document["error"]["message"]


def test_doctor_document(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, document = run(
        capsys, "doctor", "--root", str(tmp_path), "--stack", "ascend-0.22", "--only", "cann"
    )
    assert (code, document["schema"], document["stack"]) == (1, "vimectl.doctor/1", "ascend-0.22")
    assert sum(document["summary"].values()) == len(document["checks"])
    assert set(document["checks"][0]) == {"id", "group", "status", "found", "expected", "why", "fix"}


def test_doctor_of_another_root_without_a_stack_asks_for_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, document = run(capsys, "doctor", "--root", str(tmp_path))
    assert (code, "--stack" in document["error"]["hint"]) == (2, True)


def test_tms_verify_of_a_file_that_is_not_a_library(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "torch_memory_saver_hook_mode_torch.abi3.so").write_text("not a library")
    code, document = run(capsys, "tms", "verify", str(tmp_path), "--stack", "ascend-0.22")
    assert (code, document["schema"], document["ok"]) == (1, "vimectl.tms.verify/1", False)
    (build,) = document["builds"]
    assert set(build) >= {
        "path",
        "md5",
        "sha256",
        "size",
        "hook_mode",
        "backend",
        "machine",
        "verdict",
        "match",
    }
    assert (build["verdict"], build["backend"], build["machine"]) == ("not-elf", "unknown", None)


def test_env_create_refuses_a_foreign_directory(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, document = run(capsys, "env", "create", str(tmp_path), "--stack", "cpu-0.32")
    assert (code, document["error"]["kind"]) == (2, "bad-input")


@pytest.mark.skipif(sys.version_info[:2] == (3, 11), reason="this interpreter fits the stack")
def test_env_create_without_a_matching_interpreter_leaves_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code, document = run(capsys, "env", "create", str(tmp_path / "env"), "--stack", "cpu-0.32")
    assert (code, document["error"]["kind"]) == (3, "machine-lacks")
    assert "python3.11" in document["error"]["hint"]
    assert not (tmp_path / "env").exists()
