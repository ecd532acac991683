"""git and quilt as a person would use them, without anybody's configuration."""

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
    """Run a command that has to work, with these variables added; returns what it printed."""
    environment = {**ENVIRONMENT, **variables}
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def committed(directory: Path) -> Path:
    """A directory, made a repository of its own with all that is in it."""
    run(directory, "git", "init", "-q")
    for setting in ("user.name=t", "user.email=t@t", "core.autocrlf=false"):
        run(directory, "git", "config", *setting.split("="))
    run(directory, "git", "add", "-A")
    run(directory, "git", "commit", "-qm", "release")
    return directory
