"""Let git write the diff between two states of some files, so that every case of it is git's own."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vime_runtime.spec.errors import MissingRequirement

from vimectl.patches.patchfile.tree import File

if TYPE_CHECKING:
    from git import Git

_DIFF = [
    "git",
    "diff",
    *("--full-index", "--no-renames", "--binary", "--no-ext-diff", "--no-textconv", "--no-color"),
    *("--diff-algorithm=myers", "--unified=3", "--src-prefix=a/", "--dst-prefix=b/"),
]
Changes = Mapping[str, tuple[File | None, File | None]]


def git(directory: Path) -> Git:
    """Return the git of this machine, to work in ``directory`` without anybody's configuration.

    Raises MissingRequirement when there is none.
    """
    try:
        from git import Git
    except ImportError as e:
        raise MissingRequirement("there is no git here", "install git") from e
    tool = Git(directory)
    tool.update_environment(GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_NOSYSTEM="1", LC_ALL="C")
    return tool


class Differ:
    """An empty repository in which git writes diffs, one after the other."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._git = git(directory)
        self._git.execute(["git", "init", "-q"])

    def diff(self, changes: Changes) -> bytes:
        """Return what leads each path from before to after (None: no such file)."""
        trees = []
        for side in (0, 1):
            for path, states in changes.items():
                self._put(path, states[side])
            self._git.execute(["git", "-c", "core.autocrlf=false", "add", "--all", "--force"])
            trees.append(str(self._git.execute(["git", "write-tree"])))
        text = self._git.execute([*_DIFF, *trees], stdout_as_string=False, strip_newline_in_stdout=False)
        return bytes(text)

    def _put(self, path: str, file: File | None) -> None:
        place = self._directory / path
        place.unlink(missing_ok=True)
        if file is None:
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.mode == "120000":
            place.symlink_to(file.content.decode("utf-8", "surrogateescape"))
        else:
            place.write_bytes(file.content)
            place.chmod(int(file.mode[-3:], 8))


@contextmanager
def differ() -> Iterator[Differ]:
    """Yield what writes diffs, in a scratch folder of its own.

    Raises MissingRequirement when there is no git.
    """
    with tempfile.TemporaryDirectory(prefix="vimectl-") as scratch:
        yield Differ(Path(scratch))
