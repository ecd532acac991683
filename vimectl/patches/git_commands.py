"""Run git: apply patches, write the diff between two states of some files, and merge versions of a file.

Files are objects and an index of a temporary repository, never files of a work tree: no link that a patch
makes can lead git to another file.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vime_runtime.spec.errors import MissingRequirement, UsageError

from vimectl.util import git
from vimectl.util.directory_lock import explain_disk_errors

if TYPE_CHECKING:
    from vimectl.patches.patchfile.apply import GitFile

_DIFF = [
    "diff",
    *("--full-index", "--no-renames", "--binary", "--no-ext-diff", "--no-textconv", "--no-color"),
    *("--diff-algorithm=myers", "--unified=3", "--src-prefix=a/", "--dst-prefix=b/"),
]
_ONLY_MODE = re.compile(rb"^old mode \d+\nnew mode \d+\n(?!index )", re.MULTILINE)
_MARKED = re.compile(r"^<{7} .*?^>{7} [^\n]*", re.MULTILINE | re.DOTALL)
# The files of a patch before and after it, which git and this process have in memory.
_MOST_BYTES = 256 * 2**20
# By path: a file before and after (None: no such file).
FileChanges = Mapping[str, "tuple[GitFile | None, GitFile | None]"]


class TemporaryRepository:
    """A bare repository. Its index has the files that ``fill`` gave it, as a patch has changed them since."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._git("init", "--quiet", "--bare", "--template=")

    def fill(self, files: Mapping[str, GitFile]) -> None:
        """Make these files, by path, those of the index. Raises UsageError for a path that git refuses."""
        self._git("read-tree", "--empty")
        names = [f"content{number}" for number in range(len(files))]
        for name, file in zip(names, files.values(), strict=True):
            (self._directory / name).write_bytes(file.content)
        listed = "".join(f"{name}\n" for name in names).encode()
        self._git("hash-object", "-w", "--no-filters", "--stdin-paths", stdin=listed)
        entries = (f"{file.mode} {file.blob}\t{path}\0" for path, file in files.items())
        self._git("update-index", "-z", "--index-info", stdin=os.fsencode("".join(entries)))

    def apply(self, patch: bytes, *options: str) -> None:
        """Apply a patch to the files of the index. Raises UsageError, with git's words."""
        self._git("apply", "--cached", "--whitespace=nowarn", *options, "-", stdin=patch)

    def files(self) -> dict[str, tuple[str, bytes]]:
        """Return mode and content of the files of the index, by path."""
        entries = [line.partition(b"\t") for line in self._git("ls-files", "--stage", "-z").split(b"\0")[:-1]]
        blobs = dict.fromkeys(entry.split()[1] for entry, _, _ in entries)
        answer = self._git("cat-file", "--batch", stdin=b"".join(blob + b"\n" for blob in blobs))
        contents, end = {}, -1
        for blob in blobs:
            # Each answer is a line with id, type and size, the content, and a line feed.
            begin = answer.index(b"\n", end + 1) + 1
            end = begin + int(answer[end + 1 : begin].split()[2])
            contents[blob] = answer[begin:end]
        found = {}
        for entry, _, path in entries:
            mode, blob, _ = entry.split()
            found[os.fsdecode(path)] = mode.decode(), contents[blob]
        return found

    def tree(self) -> str:
        """Return the id of a tree with the files of the index."""
        return self._git("write-tree").decode().strip()

    def diff(self, changes: FileChanges) -> bytes:
        """Return the diff of these changes. Raises UsageError when the files are too large for a patch."""
        files = [file for states in changes.values() for file in states if file]
        if sum(len(file.content) for file in files) > _MOST_BYTES:
            message = f"a patch changes files of more than {_MOST_BYTES >> 20} MiB together"
            raise UsageError(message, "split it, or leave files out")
        trees = []
        for version in (0, 1):
            self.fill({path: file for path, states in changes.items() if (file := states[version])})
            trees.append(self.tree())
        return _with_every_id(self._git(*_DIFF, *trees), changes)

    def _git(self, *arguments: str, stdin: bytes = b"") -> bytes:
        done = git.run(self._directory, *arguments, stdin=stdin, user_settings=False)
        if done.returncode:
            said = os.fsdecode(done.stderr).strip().replace("error: ", "").replace("\n", "; ")
            if os.strerror(errno.ENOSPC) in said:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise UsageError(said)
        return done.stdout


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


@contextmanager
def temporary_repository() -> Iterator[TemporaryRepository]:
    """Yield an empty repository. Raises MissingRequirement without git or space for it."""
    with temporary_folder() as scratch:
        yield TemporaryRepository(scratch)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a temporary folder. Raises MissingRequirement when it cannot be written."""
    hint = "free some space, or name another folder with TMPDIR"
    try:
        where = Path(tempfile.gettempdir())
    except OSError as e:  # full, or not writable, as are the other usual folders
        raise MissingRequirement("there is no folder for temporary files that can be written", hint) from e
    with (
        explain_disk_errors(where, hint),
        tempfile.TemporaryDirectory(prefix="vimectl-") as scratch,
    ):
        yield Path(scratch)


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
    with temporary_folder() as scratch:
        for name, data in (("base", base), ("ours", ours), ("theirs", theirs)):
            (scratch / name).write_bytes(data)
        names = [word for label in (labels[1], labels[0], labels[2]) for word in ("-L", label)]
        arguments = ("merge-file", "-p", "--diff3", *names, "ours", "base", "theirs")
        done = git.run(scratch, *arguments, user_settings=False)
    # The exit code is the number of conflicts, at most 127; a higher one is an error.
    if 0 <= done.returncode < 128:
        return FileMerge(done.stdout, done.returncode)
    return FileMerge(ours, None, os.fsdecode(done.stderr).strip())


def _missing(base: bytes | None, ours: bytes | None, labels: tuple[str, str, str]) -> str:
    if base is None:
        return f"{labels[1]} and {labels[2]} both have such a file, with different content"
    deletes, changes = labels[1:] if ours is None else labels[:0:-1]
    return f"{deletes} does not have the file, {changes} changes it"
