"""Read the files of a commit from a git repository, as the release that patches are for."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from vime_runtime.spec.errors import MissingRequirement, UsageError
from vime_runtime.spec.regular_files import MAX_BYTES

from vimectl.util import git


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
        if entry is None:
            return None
        content = read_blob(self._directory, entry[1])
        if content is None:
            message = f"{self.name}: {path} cannot be read, or is larger than {MAX_BYTES >> 20} MiB"
            raise UsageError(message, "complete the repository with: git fetch")
        return content

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
        done = git.run(self._directory, *arguments)
        if done.returncode:
            said = os.fsdecode(done.stderr).strip().removeprefix("fatal: ")
            raise UsageError(
                f"{self._directory}: {said or 'git failed'}", "name a git work tree and a commit"
            )
        return done.stdout


def read_blob(directory: Path, blob: str) -> bytes | None:
    """Return the content of a blob of ordinary size, or None when there is none or git is not installed."""
    size = git_output(directory, "cat-file", "-s", blob)
    return git_output(directory, "cat-file", "blob", blob) if size and int(size) <= MAX_BYTES else None


def git_output(directory: Path, *arguments: str, work_tree: bool = False) -> bytes | None:
    """Return the output of git in a directory, or None when it fails or is not installed."""
    try:
        done = git.run(directory, *arguments, work_tree=work_tree)
    except MissingRequirement:
        return None
    return None if done.returncode else done.stdout
