"""atheris (libFuzzer) searches for a patch that the reader does not survive."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import TESTS

SECONDS = 600


@pytest.mark.exhaustive
def test_no_generated_patch_breaks_the_reader(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="not in the locks: .venv/bin/pip install atheris")
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "harness.patches.fuzz_patches", str(SECONDS)]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-5000:]
