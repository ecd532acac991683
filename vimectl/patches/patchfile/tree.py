"""Apply a whole patch file to a tree that is only looked at: what changes comes back as a value.

Accepts, refuses and makes what `git apply` does, without a work tree. Whether a file lies where a folder
is cannot be told by looking up files: whoever writes the result finds that out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from vime_runtime.spec.errors import UsageError

from vimectl.patches.blobs import blob_id
from vimectl.patches.patchfile import binary, names
from vimectl.patches.patchfile.model import SYMLINK, FileDiff
from vimectl.patches.patchfile.paths import wrong_path
from vimectl.patches.patchfile.place import Image, put

_TYPE = 0o170000


@dataclass(frozen=True, slots=True)
class File:
    """A file as git stores it: of a symbolic link the content is its target."""

    content: bytes
    mode: str = "100644"


Lookup = Callable[[str], File | None]


class Refused(UsageError):
    """A patch does not apply; the message names its line and the file."""


def apply(diffs: Sequence[FileDiff], lookup: Lookup) -> dict[str, File | None]:
    """Return what each changed path becomes; None: it is removed. Raises Refused, then nothing is changed."""
    application = _Application(diffs, lookup)
    made = [(diff, application.one(diff)) for diff in diffs]
    changed: dict[str, File | None] = {}
    for diff in diffs:
        if diff.old_path is not None and diff.action != "copy":
            changed[diff.old_path] = None
    for diff, file in made:
        if diff.new_path is not None:
            changed[diff.new_path] = file
    return changed


class _Application:
    """``_results`` holds what diffs so far made of a path, None once it is gone."""

    def __init__(self, diffs: Sequence[FileDiff], lookup: Lookup) -> None:
        self._lookup = lookup
        self._results: dict[str, File | None] = {}
        goes = [diff for diff in diffs if diff.action in ("delete", "rename")]
        self._going = {diff.old_path for diff in goes}
        self._links_gone = {diff.old_path for diff in goes if diff.old_mode == SYMLINK}
        self._links_made = {diff.new_path for diff in diffs if diff.new_path and diff.new_mode == SYMLINK}

    def one(self, diff: FileDiff) -> File | None:
        """Apply one diff and return what it makes."""
        old = self._preimage(diff)
        created = diff.old_path is None or old is None
        if created or diff.action in ("rename", "copy"):
            self._check_free(diff)
        mode = self._mode(diff, old)
        for path in (None if diff.action == "copy" else diff.old_path, diff.new_path):
            if path is not None and (wrong := wrong_path(path)):
                raise _refused(diff, f"{path!r} {wrong.what}")
        for path in (diff.new_path, None if created else diff.old_path):
            if path is not None and (link := self._link_above(path, made_count=path == diff.new_path)):
                raise _refused(diff, f"{path} lies behind the symbolic link {link}")
        content = _content(diff, b"" if old is None else old.content)
        if diff.action == "delete" and content:
            raise _refused(diff, f"{diff.path} is deleted, and something of it would be left")
        if diff.action in ("delete", "rename") and diff.old_path is not None:
            self._results[diff.old_path] = None
        if diff.new_path is None:
            return None
        if mode == SYMLINK and (not content or b"\0" in content):
            raise _refused(diff, f"{diff.path} would be a symbolic link to nothing")
        self._results[diff.new_path] = File(content, mode)
        return self._results[diff.new_path]

    def _preimage(self, diff: FileDiff) -> File | None:
        path = diff.old_path
        if path is None:
            return None
        if diff.action not in ("rename", "copy") and path in self._results:
            # Renames and copies start from the file as it was: their order does not count.
            found = self._results[path]
            if found is None:
                raise _refused(diff, f"{path} was renamed or deleted before in this patch")
            return found
        found = self._lookup(path)
        if found is None and not diff.may_create:
            raise _refused(diff, f"there is no file {path}")
        return found

    def _check_free(self, diff: FileDiff) -> None:
        path = diff.new_path
        if path is None or self._lookup(path) is None:
            return
        gone = path in self._results and self._results[path] is None
        if not gone and not (path in self._going and path not in self._results):
            raise _refused(diff, f"{path} exists already")

    def _mode(self, diff: FileDiff, old: File | None) -> str:
        if old is None:
            return _kept_bits(diff, diff.new_mode or "100644")
        said = int(diff.old_mode or old.mode, 8)
        if (said ^ int(old.mode, 8)) & _TYPE:
            raise _refused(diff, f"{diff.old_path} is not of the type {diff.old_mode}")
        mode = diff.new_mode or old.mode
        if diff.new_path is not None and (said ^ int(mode, 8)) & _TYPE:
            raise _refused(diff, f"{diff.path} cannot go from type {said:06o} to {mode}")
        return _kept_bits(diff, mode)

    def _link_above(self, path: str, made_count: bool) -> str | None:
        """The nearest folder of a path that is a link or file, before the patch or (``made_count``) by it."""
        for folder in _folders(path):
            if made_count and folder in self._links_made:
                return folder
            if made_count and folder in self._links_gone:
                continue
            found = self._lookup(folder)
            if found is not None and (found.mode == SYMLINK or folder not in self._going):
                return folder
        return None


def _content(diff: FileDiff, content: bytes) -> bytes:
    if diff.binary is not None:
        return _binary(diff, content)
    image = Image(content)
    for hunk in diff.hunks:
        if not put(image, hunk):
            raise Refused(names.printable(f"line {hunk.line}: the hunk does not fit {diff.path}"))
    return image.content()


def _binary(diff: FileDiff, content: bytes) -> bytes:
    old, new = diff.old_blob or "", diff.new_blob or ""
    if len(old) != 40 or len(new) != 40:
        raise _refused(diff, f"{diff.path} is binary, and the index line does not have the full ids")
    if diff.old_path is None and content:
        raise _refused(diff, f"{diff.path} is not empty")
    if diff.old_path is not None and blob_id(content) != old:
        raise _refused(diff, f"{diff.path} is {blob_id(content)}, not {old}")
    if not new.strip("0"):
        return b""
    if not diff.binary:
        raise _refused(diff, f"the data of {diff.path} is missing")
    try:
        result = binary.patched(content, diff.binary[0])
    except binary.Corrupt as e:
        raise _refused(diff, f"{diff.path}: {e}") from e
    if blob_id(result) != new:
        raise _refused(diff, f"{diff.path} becomes {blob_id(result)}, not {new}")
    return result


def _kept_bits(diff: FileDiff, mode: str) -> str:
    """What git keeps of a mode: the type, and of a file whether it may be executed."""
    kind = int(mode, 8) & _TYPE
    if kind == 0o120000:
        return SYMLINK
    if kind != 0o100000:
        raise _refused(diff, f"{diff.path} is of type {mode}: neither a file nor a symbolic link")
    return "100755" if int(mode, 8) & 0o100 else "100644"


def _folders(path: str) -> Iterator[str]:
    """The folders of a path, the innermost first."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _refused(diff: FileDiff, message: str) -> Refused:
    return Refused(names.printable(f"line {diff.line}: {message}"))
