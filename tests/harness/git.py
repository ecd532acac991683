"""Run git as a fixed author at a fixed time, without any user's configuration."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{who}_NAME": "test" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "test@localhost" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_DATE": "2026-01-01T00:00:00Z" for who in ("AUTHOR", "COMMITTER")},
}


def git(directory: Path, *arguments: str) -> bytes:
    """Run a git command that must succeed, and return its output."""
    done = subprocess.run(
        ["git", "-C", directory, *arguments], env=os.environ | ENVIRONMENT, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def commit(directory: Path) -> str:
    """Commit everything in a directory, a repository or not yet one, and return the commit's id."""
    git(directory, "init", "-q", "--template=")
    git(directory, "add", "--all")
    git(directory, "commit", "-q", "-m", "test")
    return git(directory, "rev-parse", "HEAD").decode().strip()


def two_commits(repository: Path) -> str:
    """Make a repository with two commits, a program, a link and attributes; return the first commit's id."""
    (repository / "package").mkdir(parents=True)
    (repository / "package" / "__init__.py").write_text("version = 1\n")
    (repository / "build.sh").write_text("#!/bin/sh\n")
    (repository / "build.sh").chmod(0o755)
    (repository / "link").symlink_to("package/__init__.py")
    # Attributes with which git archive would leave out or change files.
    (repository / ".gitattributes").write_text("build.sh export-ignore\nstamp export-subst\n")
    (repository / "stamp").write_text("$Format:%H$\n")
    first = commit(repository)
    (repository / "package" / "__init__.py").write_text("version = 2\n")
    commit(repository)
    return first
