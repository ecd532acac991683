from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import TESTS
from harness.patches.hostile_series import build_world

SEEDS = [*range(8), *(pytest.param(seed, marks=pytest.mark.exhaustive) for seed in range(8, 75))]


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_no_command_changes_a_file_outside(seed: int, tmp_path: Path) -> None:
    kind = build_world(tmp_path, seed)
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "TMPDIR": str(tmp_path / "tmp"),
        "HOME": str(tmp_path / "work"),
        "XDG_STATE_HOME": str(tmp_path / "work" / "state"),
    }
    command = [sys.executable, "-m", "harness.patches.patch_commands", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{kind}: {done.stderr[-3000:]}"
    for result in json.loads(done.stdout):
        assert result["changed"] == [], (kind, result)
        assert result["code"] in (0, 1, 2, 3), (kind, result)
        assert "--debug" not in result["text"], (kind, result)  # the hint of an unforeseen error
    assert not any((tmp_path / "tmp").iterdir()), kind
