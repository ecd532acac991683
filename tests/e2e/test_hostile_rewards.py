"""Runs whose reward hangs, exits, forks, allocates, prints, deletes and reads what it should not."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from harness.runs.recipe_run import RecipeRun, run_recipe

# About one in eight responses makes an attack: some seventy in a run of four steps, of eight kinds.
REWARD = """
import os, sys, time, zlib
from pathlib import Path

RUN = Path({run!r})

def reward(response):
    number = zlib.crc32(response.encode())
    if number % 8 == 5:
        ATTACKS[number // 8 % len(ATTACKS)]()
    return len(response) % 3

def hang():
    time.sleep(600)

def leave():
    sys.exit("enough")

def crash():
    os.abort()

def daemon():
    if os.fork() == 0:
        os.setsid()
        time.sleep(600)
    os._exit(0)

def allocate():
    bytearray(10 * 2**30)

def print_much():
    print("\\x1b[2J" + "x" * 10**8)

def delete():
    for path in RUN.rglob("*.jsonl"):
        path.unlink()

def read_secrets():
    raise RuntimeError(os.environ["SERVICE_TOKEN"])

ATTACKS = [read_secrets, leave, delete, allocate, daemon, crash, hang, print_much]
"""


def hostile_run(tmp_path: Path, code: str, *settings: str) -> RecipeRun:
    (tmp_path / "hostile_rewards.py").write_text(code)
    environment: Mapping[str, str] = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH")))),
        "SERVICE_TOKEN": "very-secret",
    }
    options = ("--mode", "smoke", "--set", "data.reward=hostile_rewards:reward", *settings)
    return run_recipe(tmp_path / "run", *options, environment=environment)


def left(tmp_path: Path) -> list[str]:
    """Return the processes that have to do with the module of the test."""
    found = []
    for process in psutil.process_iter(["environ", "cmdline"]):
        if str(tmp_path) in ((process.info["environ"] or {}).get("PYTHONPATH") or ""):
            found.append(f"{process.pid} {process.info['cmdline']}")
    return found


@pytest.mark.slow
def test_a_run_survives_a_hostile_reward(tmp_path: Path) -> None:
    code = REWARD.format(run=str(tmp_path / "run"))
    run = hostile_run(
        tmp_path, code, "--set", "data.reward_timeout=2", "--set", "data.max_reward_failures=0.5"
    )
    assert run.code == 0, run.output
    rows = run.metrics
    assert sum(row["reward/errors"] for row in rows) > 0
    assert sum(row["reward/timeouts"] for row in rows) > 0
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    events = (run.directory / "events.jsonl").read_text()
    warnings = [e["message"] for e in map(json.loads, events.splitlines()) if e["kind"] == "warning"]
    assert warnings
    assert all("hostile_rewards.py:" in warning or "exited with code" in warning for warning in warnings)
    log = run.directory / "logs" / "rewards.log"
    assert not log.exists() or "\x1b" not in log.read_text()
    assert "very-secret" not in events
    assert left(tmp_path) == []
    assert run.left_in_shm == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "reason", "where"),
    [
        ("import sys; sys.exit(3)", "SystemExit: 3; ", "hostile_rewards.py:2 in reward"),
        ("import os; os._exit(4)", "the reward process exited with code 4; ", ""),
    ],
)
def test_a_reward_that_always_fails_ends_the_run_with_its_error(
    tmp_path: Path, body: str, reason: str, where: str
) -> None:
    run = hostile_run(tmp_path, f"def reward(answer, label):\n    {body}\n")
    assert run.code == 1
    assert run.summary["reason"].startswith(reason)
    assert run.summary["where"].endswith(where)
    assert "data.max_reward_failures" in run.summary["hint"]
    assert run.summary["reason"] in run.output.replace("\n", " ") or reason in run.output
    assert left(tmp_path) == []
