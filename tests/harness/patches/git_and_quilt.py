"""Run git and quilt without any user's configuration."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ENVIRONMENT = {
    **os.environ,
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "QUILTRC": os.devnull,
}


def run(directory: Path, *command: str, **variables: str) -> str:
    """Run a command that must succeed, with these variables added, and return its output."""
    environment = {**ENVIRONMENT, **variables}
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def committed(directory: Path) -> Path:
    """Make a directory a git repository, with everything in it committed."""
    run(directory, "git", "init", "-q")
    for setting in ("user.name=t", "user.email=t@t", "core.autocrlf=false"):
        run(directory, "git", "config", *setting.split("="))
    run(directory, "git", "add", "-A")
    run(directory, "git", "commit", "-qm", "release")
    return directory
