"""A user's stack whose sources are local: a repository and one wheel."""

from __future__ import annotations

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
megatron-core = ["0.16.1"]

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
