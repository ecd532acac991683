"""Run git and quilt without any user's configuration."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from harness import git
from harness.needs import require


def run(directory: Path, *command: str, **variables: str) -> str:
    """Run a command that must succeed, with these variables added, and return its output."""
    environment = os.environ | git.ENVIRONMENT | {"QUILTRC": os.devnull} | variables
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def committed(directory: Path) -> Path:
    """Make a directory a git repository, with everything in it committed."""
    git.commit(directory)
    return directory


def quilt_push(directory: Path, patches: Path) -> None:
    """Apply a quilt series with quilt."""
    require("quilt")
    run(directory, "quilt", "push", "-a", QUILT_PATCHES=str(patches))
