"""Run git: write the diff between two states of some files, and merge three versions of a file."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vime_runtime.spec.errors import MissingRequirement

from vimectl.patches.blobs import LINK

if TYPE_CHECKING:
    from git import Git

    from vimectl.patches.patchfile.apply import GitFile

_DIFF = [
    "git",
    "diff",
    *("--full-index", "--no-renames", "--binary", "--no-ext-diff", "--no-textconv", "--no-color"),
    *("--diff-algorithm=myers", "--unified=3", "--src-prefix=a/", "--dst-prefix=b/"),
]
_ONLY_MODE = re.compile(rb"^old mode \d+\nnew mode \d+\n(?!index )", re.MULTILINE)
_MARKED = re.compile(r"^<{7} .*?^>{7} [^\n]*", re.MULTILINE | re.DOTALL)
# By path: a file before and after (None: no such file).
FileChanges = Mapping[str, "tuple[GitFile | None, GitFile | None]"]


def open_git(directory: Path) -> Git:
    """Return the installed git, working in ``directory`` without any user or system configuration.

    Raises MissingRequirement when git is not installed.
    """
    try:
        from git import Git
    except ImportError as e:  # GitPython raises this without a git executable
        raise MissingRequirement("there is no git here", "install git") from e
    git = Git(directory)
    git.update_environment(GIT_CONFIG_GLOBAL=os.devnull, GIT_CONFIG_NOSYSTEM="1", LC_ALL="C")
    return git


class DiffWriter:
    """An empty repository in which git writes one diff after another."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._git = open_git(directory)
        self._git.execute(["git", "init", "-q"])

    def diff(self, changes: FileChanges) -> bytes:
        """Return the diff of these changes."""
        trees = []
        for version in (0, 1):
            for path, states in changes.items():
                (self._directory / path).unlink(missing_ok=True)
                if (file := states[version]) is not None:
                    write_file(self._directory / path, file)
            self._git.execute(["git", "-c", "core.autocrlf=false", "add", "--all", "--force"])
            trees.append(str(self._git.execute(["git", "write-tree"])))
        text = self._git.execute([*_DIFF, *trees], stdout_as_string=False, strip_newline_in_stdout=False)
        return _with_every_id(bytes(text), changes)


def _with_every_id(diff: bytes, changes: FileChanges) -> bytes:
    """Add the ``index`` line that git omits where only the mode changes."""
    blobs = [
        before.blob
        for path, (before, after) in sorted(changes.items(), key=lambda change: os.fsencode(change[0]))
        if before and after and before.content == after.content and before.mode != after.mode
    ]
    ids = iter(blobs)

    def add(found: re.Match[bytes]) -> bytes:
        blob = next(ids).encode()
        return found[0] + b"index " + blob + b".." + blob + b"\n"

    return _ONLY_MODE.sub(add, diff)


def write_file(path: Path, file: GitFile) -> None:
    """Write a file or symbolic link to a new path, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if file.mode == LINK:
        path.symlink_to(file.content.decode("utf-8", "surrogateescape"))
    else:
        path.write_bytes(file.content)
        path.chmod(int(file.mode[-3:], 8))


@contextmanager
def diff_writer() -> Iterator[DiffWriter]:
    """Yield a DiffWriter in a temporary folder. Raises MissingRequirement when git is not installed."""
    with tempfile.TemporaryDirectory(prefix="vimectl-") as scratch:
        yield DiffWriter(Path(scratch))


class FileMerge(NamedTuple):
    """The result of a merge (None: no such file). ``conflicts`` counts the marked places; None: git cannot
    merge such files, and ``error`` says why."""

    content: bytes | None
    conflicts: int | None
    error: str = ""

    @property
    def clean(self) -> bool:
        return self.conflicts == 0

    @property
    def shown(self) -> str:
        """Return the conflicts with their markers, for messages."""
        text = (self.content or b"").decode("utf-8", "backslashreplace")
        return self.error or "\n".join(_MARKED.findall(text))


def merge_file(
    base: bytes | None, ours: bytes | None, theirs: bytes | None, labels: tuple[str, str, str]
) -> FileMerge:
    """Merge three versions of a file with `git merge-file`, with conflicts in diff3 style.

    ``labels`` name base, ours and theirs in the conflict markers. What git cannot merge (binary content, a
    file that one version lacks) is returned as ``ours`` has it. Raises MissingRequirement when git is not
    installed.
    """
    if base == theirs or ours == theirs:
        return FileMerge(ours, 0)
    if base == ours:
        return FileMerge(theirs, 0)
    if base is None or ours is None or theirs is None:
        return FileMerge(ours, None, _missing(base, ours, labels))
    with tempfile.TemporaryDirectory(prefix="vimectl-") as scratch:
        for name, data in (("base", base), ("ours", ours), ("theirs", theirs)):
            Path(scratch, name).write_bytes(data)
        names = [word for label in (labels[1], labels[0], labels[2]) for word in ("-L", label)]
        status, merged, error = open_git(Path(scratch)).execute(
            ["git", "merge-file", "-p", "--diff3", *names, "ours", "base", "theirs"],
            with_extended_output=True,
            with_exceptions=False,
            stdout_as_string=False,
            strip_newline_in_stdout=False,
        )
    # The exit code is the number of conflicts, at most 127; a higher one is an error.
    if 0 <= status < 128:
        return FileMerge(bytes(merged), int(status))
    return FileMerge(ours, None, str(error))


def _missing(base: bytes | None, ours: bytes | None, labels: tuple[str, str, str]) -> str:
    if base is None:
        return f"{labels[1]} and {labels[2]} both have such a file, with different content"
    deletes, changes = labels[1:] if ours is None else labels[:0:-1]
    return f"{deletes} does not have the file, {changes} changes it"
