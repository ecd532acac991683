"""`vimectl init`: a project file in the working directory, never over another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vimectl.stacks.catalog import default_stack, load_summary


def test_init_writes_a_file_that_is_the_default_and_keeps_an_existing_one(
    run_json: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VIMECTL_STACK", raising=False)
    code, document = run_json("init")
    assert (code, document["schema"]) == (0, "vimectl.init/1")
    assert document["path"] == default_stack() == str(tmp_path / "vimectl.toml")
    assert document.keys() >= {"extends", "packages", "patches", "targets"}
    load_summary(document["path"])
    text = (tmp_path / "vimectl.toml").read_text()
    code, document = run_json("init")
    assert (code, "exists already" in document["error"]["message"]) == (2, True)
    assert (tmp_path / "vimectl.toml").read_text() == text
