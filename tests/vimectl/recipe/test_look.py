"""What one look at a run takes from what has happened since the look before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vimectl.recipe.accidents import Accidents
from vimectl.recipe.journal import Journal

PHASE = {"kind": "phase", "detail": "", "step": 3, "steps": 4}


@pytest.fixture
def engine() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield child
    child.kill()
    child.communicate()


def write(run_dir: Path, *events: dict[str, Any]) -> None:
    with (run_dir / "events.jsonl").open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


@pytest.mark.parametrize(("phase", "is_lost"), [("sync", True), ("stop", False), ("save", False)])
def test_an_engine_that_ends_is_lost_unless_the_run_closes_it(
    tmp_path: Path, engine: subprocess.Popen[bytes], phase: str, is_lost: bool
) -> None:
    """Both may come between two looks: the engine's end, and the word before it that it is not needed."""
    accidents = Accidents(Journal(tmp_path), 600, tmp_path / "stacks.log")
    process = {"kind": "process", "role": "engine", "rank": 0, "pid": engine.pid}
    write(tmp_path, process | {"node": os.uname().nodename}, PHASE | {"phase": "rollout"})
    assert accidents.look() is None
    write(tmp_path, PHASE | {"phase": phase})
    engine.kill()
    accidents.pause(10)
    assert accidents.look() is None
    assert (accidents.cause is not None) is is_lost
    accidents.close()
