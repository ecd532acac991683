from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from vimectl.cli import run_cli
from vimectl.stacks.catalog import stack_file


def test_list_and_show(run_json: Callable[..., Any]) -> None:
    code, document = run_json("stack", "list")
    assert (code, document["schema"], document["ok"]) == (0, "vimectl.stack.list/1", True)
    proven = {stack["name"]: stack["proven"] for stack in document["stacks"]}
    assert (proven["cpu-0.32"], proven["ascend-0.22"], proven["ascend-0.11"]) == (True, True, False)
    code, document = run_json("stack", "show", "cpu-0.32")
    assert (code, document["stack"]["packages"]["vllm"]) == (0, "0.32.0")


def test_show_prints_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["stack", "show", "cpu-0.32"]) == 0
    text = capsys.readouterr().out
    assert text == stack_file("cpu-0.32").read_text()
    assert "apt-get install libnuma1" in text
