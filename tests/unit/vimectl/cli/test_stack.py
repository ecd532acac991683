from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from vimectl.cli import run_cli


def test_list_and_show(run_json: Callable[..., Any]) -> None:
    code, document = run_json("stack", "list")
    assert (code, document["schema"], document["ok"]) == (0, "vimectl.stack.list/1", True)
    proven = {stack["name"]: stack["proven"] for stack in document["stacks"]}
    assert (proven["cpu-0.32"], proven["ascend-0.22"], proven["ascend-0.11"]) == (True, True, False)
    code, document = run_json("stack", "show", "cpu-0.32")
    assert (code, document["stack"]["packages"]["vllm"]) == (0, "0.32.0")


def test_system_libraries_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["stack", "show", "cpu-0.32"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("libnuma.so.1"))
    assert "apt-get install libnuma1" in line
