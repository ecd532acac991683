"""Find the files of a target that a user edited, and what they were before.

In a work tree git knows both. An installed package has RECORD, which says which files differ; their contents
before come from pip's cache or index.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from vime_runtime.spec.errors import CheckFailed, UsageError

from vimectl.patches import content
from vimectl.patches.applied_state import FOLDER
from vimectl.patches.blobs import content_at, git_mode
from vimectl.patches.distribution import record_rows
from vimectl.patches.git_tree import CommitFiles, git_output
from vimectl.patches.patchfile.apply import GitFile
from vimectl.patches.path_rules import PathRule, is_included
from vimectl.patches.release_files import PatchedRelease, ReleaseFiles
from vimectl.patches.target import PatchTarget
from vimectl.util.dist_info import record_hash

_LEFT_BEHIND = ("*.pyc", "*~", "*.orig", "*.rej", ".*.sw?")


def find(target: PatchTarget, rules: Sequence[PathRule] = ()) -> list[str]:
    """Return the paths that differ from what was committed or installed and that the rules include, sorted.

    Raises UsageError for a plain tree, of which nothing says what was edited, if no rule names the files.
    """
    if target.kind in ("git", "editable") and (found := _changed_in_git(target.location)) is not None:
        paths: Iterable[str] = found
    elif target.record:
        paths = _changed_since_installed(target.location, target.record)
    elif any(rule.include for rule in rules):
        paths = (os.fspath(path.relative_to(target.location)) for path in target.location.rglob("*"))
        paths = (path for path in paths if not (target.location / path).is_dir())
    else:
        raise UsageError(
            f"{target.location}: nothing says which files of this directory were edited",
            "name them with --include PATTERN",
        )
    return sorted(p for p in paths if not p.startswith(f"{FOLDER}/") and is_included(p, rules))


def current(target: PatchTarget, path: str) -> GitFile | None:
    """Return a file of a target as it is."""
    file = target.location / path
    data = content_at(file)
    return None if data is None else GitFile(data, git_mode(file.lstat().st_mode))


class Originals:
    """The files of a target before any edit and without patches. ``against`` replaces pip's sources."""

    def __init__(self, target: PatchTarget, against: ReleaseFiles | None = None) -> None:
        self._target = target
        self._source = against
        self._hashes: dict[str, str] = {}
        if target.record:
            rows = record_rows(target.record.read_bytes())
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
        source = self._source or content.release(self._target.package, self._target.version)
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
    tracked = git_output(
        location, "diff", "--name-only", "--relative", "--no-renames", "--ignore-submodules", "-z", "HEAD"
    )
    if tracked is None:
        return None
    new = git_output(location, "ls-files", "--others", "--exclude-standard", "-z") or b""
    return [os.fsdecode(path) for path in (tracked + new).split(b"\0") if path]


def _changed_since_installed(location: Path, record: Path) -> Iterator[str]:
    """Yield the paths of which RECORD has another hash, or that are new in a folder of the package."""
    listed, folders = set(), set()
    for path, stated in record_rows(record.read_bytes()):
        listed.add(path)
        top, slash, _ = path.partition("/")
        if not stated or top == ".." or top.endswith((".dist-info", ".data")):
            continue
        if slash:
            folders.add(top)
        data = content_at(location / path)
        if data is None or record_hash(data, stated.partition("=")[0]) != stated:
            yield path
    new = [path for folder in sorted(folders) for path in _files_in(location, folder) if path not in listed]
    if new:  # a namespace package shares its folder with other distributions
        records = (path.read_bytes() for path in location.glob("*.dist-info/RECORD"))
        others = {path for text in records for path, _ in record_rows(text)}
        yield from (path for path in new if path not in others)


def _files_in(location: Path, folder: str) -> Iterator[str]:
    """Yield the files in a folder, without bytecode and what editors and patch programs leave."""
    for root, names, files in os.walk(location / folder):
        names[:] = [name for name in names if name != "__pycache__"]
        for name in files:
            if not any(fnmatchcase(name, pattern) for pattern in _LEFT_BEHIND):
                yield os.path.relpath(os.path.join(root, name), location)
