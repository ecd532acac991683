from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.skipif(sys.version_info[:2] == (3, 11), reason="this interpreter fits the stack")
def test_create_without_a_matching_interpreter_leaves_nothing(
    run_json: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code, document = run_json("env", "create", str(tmp_path / "env"), "--stack", "cpu-0.32")
    assert (code, document["error"]["kind"]) == (3, "machine-lacks")
    assert "python3.11" in document["error"]["hint"]
    assert not (tmp_path / "env").exists()
