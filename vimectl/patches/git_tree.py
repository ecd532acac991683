"""Read the files of a commit from a git repository, as the release that patches are for."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from vime_runtime.spec.errors import MissingRequirement, UsageError


class CommitFiles:
    """The files of a commit below a directory of a git work tree. ``commit`` is the full id.

    Raises UsageError when the directory is in no work tree or has no such commit, MissingRequirement when git
    is not installed.
    """

    def __init__(self, directory: Path, revision: str = "HEAD") -> None:
        self._directory = directory
        peeled = f"{revision}^{{commit}}"
        self.commit = os.fsdecode(self._git("rev-parse", "--verify", "--end-of-options", peeled)).strip()
        self.name = f"{directory} at {self.commit[:12]}"

    def read(self, path: str) -> bytes | None:
        """Return the content of a file, the target of a link, or None for no such file."""
        entry = self._entries.get(path)
        return None if entry is None else self._git("cat-file", "blob", entry[1])

    def mode(self, path: str) -> int:
        """Return the ``st_mode`` of an existing file."""
        return int(self._entries[path][0], 8)

    def paths(self) -> list[str]:
        """Return the paths of all files, sorted."""
        return sorted(self._entries)

    @cached_property
    def _entries(self) -> dict[str, tuple[str, str]]:
        """Mode and blob id by path, without submodules."""
        lines = os.fsdecode(self._git("ls-tree", "-r", "-z", self.commit)).split("\0")[:-1]
        entries = (line.partition("\t") for line in lines)
        words = ((path, entry.split()) for entry, _, path in entries)
        return {path: (mode, blob) for path, (mode, kind, blob) in words if kind == "blob"}

    def _git(self, *arguments: str) -> bytes:
        try:
            return _run(self._directory, arguments, check=True).stdout
        except FileNotFoundError as e:
            raise MissingRequirement("git is not installed", "install git") from e
        except subprocess.CalledProcessError as e:
            said = os.fsdecode(e.stderr).strip().removeprefix("fatal: ")
            raise UsageError(
                f"{self._directory}: {said or 'git failed'}", "name a git work tree and a commit"
            ) from e


def git_output(directory: Path, *arguments: str) -> bytes | None:
    """Return the output of git in a directory, or None when it fails or is not installed."""
    try:
        done = _run(directory, arguments, check=False)
    except FileNotFoundError:
        return None
    return None if done.returncode else done.stdout


def _run(directory: Path, arguments: Sequence[str], check: bool) -> subprocess.CompletedProcess[bytes]:
    # A git hook sets GIT_DIR and others for its own repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(directory), *arguments]
    return subprocess.run(command, check=check, capture_output=True, env=environment)
