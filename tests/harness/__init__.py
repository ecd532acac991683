"""Helpers that tests share: `from harness.area.module import name`.

Modules that a test starts as a process are found with ``script``; those that import other modules of this
package need ``TESTS`` on their PYTHONPATH.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
REPOSITORY = TESTS.parent
RUNTIME = REPOSITORY / "runtime"


def script(module: str) -> Path:
    """Return the file of a module of this package, ``area.name``, to start it as a process."""
    path = Path(__file__).parent.joinpath(*module.split(".")).with_suffix(".py")
    assert path.is_file(), path
    return path


def run_script(module: str, *arguments: str | Path, environment: Mapping[str, str]) -> Any:
    """Run a module of this package as a process; return the JSON value in the last line that it prints."""
    command = [sys.executable, script(module), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
