"""Run every patch command on targets that were made to lead it outside or to stop it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import TESTS

NORMAL = (2, 3, 5, 10)
SEEDS = [pytest.param(seed, marks=() if seed in NORMAL else pytest.mark.exhaustive) for seed in range(77)]


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_no_command_changes_a_file_outside(seed: int, memory: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
        "TMPDIR": str(memory / "tmp"),
        "XDG_STATE_HOME": str(memory / "state"),
        "PIP_NO_INDEX": "1",
    }
    command = [sys.executable, "-m", "harness.patches.hostile_targets", str(memory), str(seed)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    for result in found["results"]:
        assert result["changed"] == [], (found["attacks"], result)
        assert result["code"] in (0, 1, 2, 3), (found["attacks"], result)
        assert "--debug" not in result["text"], (found["attacks"], result)  # the hint of an unforeseen error
