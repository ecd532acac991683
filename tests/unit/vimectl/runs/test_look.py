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

from vimectl.runs.failures import Accidents
from vimectl.runs.run_log import Journal

PHASE = {"kind": "phase", "detail": "", "step": 3, "steps": 4}
Child = subprocess.Popen[bytes]


@pytest.fixture
def children() -> Iterator[list[Child]]:
    """Two processes that end with exit code 1 when their stdin is closed."""
    started = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(2)]
    yield started
    for child in started:
        child.kill()
        child.wait()
        child.stdin.close()


def end(child: Child) -> None:
    child.stdin.close()
    child.wait()


def write(run_dir: Path, *events: dict[str, Any]) -> None:
    with (run_dir / "events.jsonl").open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


def process(role: str, child: Child) -> dict[str, Any]:
    return {"kind": "process", "role": role, "rank": 0, "pid": child.pid, "node": os.uname().nodename}


@pytest.fixture
def accidents(tmp_path: Path) -> Iterator[Accidents]:
    found = Accidents(Journal(tmp_path), 600, tmp_path / "stacks.log")
    yield found
    found.close()


@pytest.mark.parametrize(("phase", "is_lost"), [("sync", True), ("stop", False), ("save", False)])
def test_an_engine_that_ends_is_lost_unless_the_run_closes_it(
    tmp_path: Path, accidents: Accidents, children: list[Child], phase: str, is_lost: bool
) -> None:
    """Both may come between two looks: the engine's end, and the word before it that it is not needed."""
    engine = children[0]
    write(tmp_path, process("engine", engine), PHASE | {"phase": "rollout"})
    assert accidents.look() is None
    write(tmp_path, PHASE | {"phase": phase})
    end(engine)
    assert accidents.look() is None
    assert (accidents.cause is not None) is is_lost


@pytest.mark.parametrize("ending", [False, True])
def test_a_raylet_that_goes_is_to_blame_for_its_actors_unless_the_run_takes_it_down(
    tmp_path: Path, accidents: Accidents, children: list[Child], ending: bool
) -> None:
    rank, raylet = children
    write(tmp_path, process("trainer rank", rank), process("raylet", raylet))
    assert accidents.look() is None
    end(rank)
    accidents.look()
    assert accidents.cause
    assert accidents.cause.process["pid"] == rank.pid
    if ending:
        write(tmp_path, {"kind": "ending", "done": False})
    end(raylet)
    accidents.look()
    assert accidents.cause.process["pid"] == (rank if ending else raylet).pid
