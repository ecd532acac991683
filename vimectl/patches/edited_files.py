"""Find the files of a target that a user edited, and what they were before.

In a work tree git knows both. An installed package has RECORD, which says which files differ; their contents
before come from pip's cache or index.
"""

from __future__ import annotations

import errno
import hashlib
import os
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path

from vime_runtime.spec.errors import CheckFailed, UsageError

from vimectl.patches import content
from vimectl.patches.blobs import git_mode
from vimectl.patches.distribution import read_if_regular, record_rows
from vimectl.patches.git_tree import CommitFiles, git_output
from vimectl.patches.patchfile.apply import GitFile
from vimectl.patches.path_rules import PathRule, is_included
from vimectl.patches.release_files import PatchedRelease, ReleaseFiles
from vimectl.patches.target import PatchTarget
from vimectl.patches.target_tree import FOLDER, open_tree, read_with_status
from vimectl.util.directory_tree import DirectoryTree, OutsideTreeError
from vimectl.util.dist_info import record_hash

_LEFT_BEHIND = ("*.pyc", "*~", "*.orig", "*.rej", ".*.sw?")
# More than any library of a package has.
_LARGEST = 8 * 2**30
_PIECE = 2**20


def find(target: PatchTarget, rules: Sequence[PathRule] = ()) -> list[str]:
    """Return the paths that differ from what was committed or installed and that the rules include, sorted.

    Raises UsageError for a plain tree, of which nothing says what was edited, if no rule names the files.
    """
    if target.kind in ("git", "editable") and (found := _changed_in_git(target.location)) is not None:
        paths: Iterable[str] = found
    elif target.record:
        paths = _changed_since_installed(target.location, target.record)
    elif any(rule.include for rule in rules):
        with _explained(target.location), open_tree(target.location) as tree:
            paths = list(_files_in(tree, ""))
    else:
        raise UsageError(
            f"{target.location}: nothing says which files of this directory were edited",
            "name them with --include PATTERN",
        )
    return sorted(p for p in paths if not p.startswith(f"{FOLDER}/") and is_included(p, rules))


def current(target: PatchTarget, path: str) -> GitFile | None:
    """Return a file of a target as it is."""
    with _explained(target.location), open_tree(target.location) as tree:
        data, status = read_with_status(tree, path)
    return None if data is None or status is None else GitFile(data, git_mode(status.st_mode))


class Originals:
    """The files of a target before any edit and without patches. ``against`` replaces pip's sources."""

    def __init__(self, target: PatchTarget, against: ReleaseFiles | None = None) -> None:
        self._target = target
        self._source = against
        self._hashes: dict[str, str] = {}
        if target.record:
            rows = _rows(target.record)
            self._hashes = {path: stated for path, stated in rows if stated}
        elif against is None and git_output(target.location, "rev-parse", "HEAD"):
            self._source = CommitFiles(target.location)

    def read(self, path: str) -> GitFile | None:
        """Return a file as committed or released, or None when it was not there.

        Raises CheckFailed when the release that pip finds has another file than was installed, and the errors
        of fetching it.
        """
        if self._target.record and path not in self._hashes and not self._in_release(path):
            return None
        package, version = self._target.package, self._target.version
        source = self._source or content.release(package, version, compared=path in self._hashes)
        data = source.read(path)
        stated = self._hashes.get(path, "")
        if stated and (data is None or record_hash(data, stated.partition("=")[0]) != stated):
            raise CheckFailed(
                f"{path} of {source.name} is not the file that was installed",
                "name the wheel or source that was installed with --against PATH",
            )
        return PatchedRelease(source).file(path)

    def _in_release(self, path: str) -> bool:
        """Return True if the release has a file that RECORD does not list."""
        return self._source is not None and self._source.read(path) is not None


def _changed_in_git(location: Path) -> list[str] | None:
    """Return the paths that differ from HEAD, also new ones that git does not ignore; None without git."""
    names = (
        "diff",
        "--name-only",
        "--relative",
        "--no-renames",
        "--ignore-submodules",
        "-z",
        "--no-ext-diff",
    )
    tracked = git_output(location, *names, "HEAD", work_tree=True)
    if tracked is None:
        return None
    new = git_output(location, "ls-files", "--others", "--exclude-standard", "-z") or b""
    return [os.fsdecode(path) for path in (tracked + new).split(b"\0") if path]


def _changed_since_installed(location: Path, record: Path) -> Iterator[str]:
    """Yield the paths of which RECORD has another hash, or that are new in a folder of the package."""
    listed, folders = set(), set()
    with _explained(location), open_tree(location) as tree:
        for path, stated in _rows(record):
            listed.add(path)
            top, slash, _ = path.partition("/")
            if not stated or top == ".." or top.endswith((".dist-info", ".data")):
                continue
            if slash:
                folders.add(top)
            if not _has_hash(tree, path, stated):
                yield path
        new = [path for folder in sorted(folders) for path in _files_in(tree, folder) if path not in listed]
        if new:  # a namespace package shares its folder with other distributions
            names = (name for name in tree.names() if name.endswith(".dist-info"))
            records = (read_if_regular(location, f"{name}/RECORD") for name in names)
            others = {path for text in records for path, _ in record_rows(text)}
            yield from (path for path in new if path not in others)


def _rows(record: Path) -> list[tuple[str, str]]:
    """Return the rows of a RECORD."""
    with _explained(record), open_tree(record.parent) as tree:
        return record_rows(tree.read(record.name))


def _has_hash(tree: DirectoryTree, path: str, stated: str) -> bool:
    """Return True if a file has the hash that RECORD states. It is read in pieces: libraries are large."""
    name, _, encoded = stated.partition("=")
    try:
        digest = hashlib.new(name)
    except ValueError:
        return False
    try:
        with tree.open(path) as file:
            if os.fstat(file.fileno()).st_size > _LARGEST:
                return False
            while piece := file.read(_PIECE):
                digest.update(piece)
    except OutsideTreeError:
        raise
    except OSError as e:
        if e.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return False
        raise
    return urlsafe_b64encode(digest.digest()).rstrip(b"=").decode() == encoded


def _files_in(tree: DirectoryTree, folder: str) -> Iterator[str]:
    """Yield the files below a folder; in one with a name without those that editors and patch programs
    leave."""
    with suppress(FileNotFoundError, NotADirectoryError), tree.folder(folder) as opened:
        for root, names, files, _ in os.fwalk(".", dir_fd=opened):
            names[:] = [name for name in names if not folder or name != "__pycache__"]
            for name in files:
                if not folder or not any(fnmatchcase(name, pattern) for pattern in _LEFT_BEHIND):
                    yield os.path.normpath(os.path.join(folder, root, name))


@contextmanager
def _explained(location: Path) -> Iterator[None]:
    """Raise UsageError for a file that cannot be read, is no file, or is outside."""
    try:
        yield
    except OSError as e:
        path = e.filename or location
        raise UsageError(f"{path}: {e.strerror}", "put a file of the package in its place") from e
