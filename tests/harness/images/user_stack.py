"""A user's stack whose sources are local: a repository and one wheel."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

STACK = """
[stack]
name = "own"
description = "made for a test"
device = "cpu"
python = ">=3.10"
machines = ["x86_64", "aarch64"]

[packages]

[image]
python = "3.12"
glibc = "2.35"
base = "localhost/base"

[commits.trainer]
url = "{trainer}"
commit = "{commit}"

[patches]
megatron-core = "0.16.1"

[notes]
python = "a test"
machines = "a test"
image = "a test"
commits = "a test"
patches = "a test"
"""


@dataclass(frozen=True)
class UserStack:
    """The stack file, its repository with the pinned commit, and the find-links folder of pip."""

    file: Path
    repository: Path
    commit: str
    links: Path


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder and return its output."""
    options = ["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "init.defaultBranch=main"]
    return subprocess.run(
        ["git", *options, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def commit(folder: Path, message: str) -> str:
    """Commit everything in a folder and return the commit's id."""
    git(folder, "add", "--all")
    git(folder, "commit", "-q", "-m", message)
    return git(folder, "rev-parse", "HEAD")
