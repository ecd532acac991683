"""docs/matrix.md is what scripts/matrix.py writes."""

from __future__ import annotations

import subprocess
import sys

from harness import REPOSITORY


def test_matrix_of_releases_is_current() -> None:
    command = [sys.executable, REPOSITORY / "scripts" / "matrix.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
