from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from vimectl.runs import run_state
from vimectl.runs.process_identity import Identity

HERE = asdict(Identity.of(os.getpid()))


def write(run_dir: Path, **files: Any) -> Path:
    for name, content in files.items():
        (run_dir / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return run_dir


@pytest.mark.parametrize(
    ("files", "state"),
    [
        ({"summary": {"ok": True}, "launcher": HERE}, "finished"),
        ({"summary": {"ok": False, "exit_code": 130}, "launcher": HERE}, "interrupted"),
        ({"summary": {"ok": False, "exit_code": 1}, "launcher": HERE}, "failed"),
        ({"launcher": HERE}, "running"),
        ({"launcher": HERE | {"started": HERE["started"] - 1}, "supervisor": HERE}, "running"),
        ({"launcher": HERE | {"started": HERE["started"] - 1}}, "lost"),  # a later process has the id
        ({"launcher": HERE | {"pid": 2**22 + 1}}, "lost"),
        ({"launcher": HERE | {"host": "elsewhere"}}, "running"),  # one cannot tell
        ({"launcher": {"pid": 1}}, "lost"),
        ({"summary": "{", "launcher": HERE}, "running"),  # somebody is writing it
        ({}, "lost"),
    ],
)
def test_the_state_of_a_run(tmp_path: Path, files: dict[str, Any], state: str) -> None:
    assert run_state.state(write(tmp_path, **files)) == state


def test_the_supervisor_keeps_a_run_going_before_the_launcher(tmp_path: Path) -> None:
    other = asdict(Identity.of(os.getppid()))
    owner = run_state.living_owner(write(tmp_path, launcher=HERE, supervisor=other))
    assert owner is not None
    assert owner.pid == os.getppid()
    write(tmp_path, supervisor=other | {"pid": 2**22 + 1})
    owner = run_state.living_owner(tmp_path)
    assert owner is not None
    assert owner.pid == os.getpid()
    assert run_state.living_owner(write(tmp_path, launcher=HERE | {"host": "elsewhere"})) is None
