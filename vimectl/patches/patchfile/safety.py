"""What git would do without a word and nobody wants: writing elsewhere, strange modes, things twice."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from vimectl.patches.patchfile.model import SYMLINK, Defect, FileDiff, Hunk
from vimectl.patches.patchfile.paths import wrong_path

_FILES = {"100644", "100755"}


def check(diffs: Sequence[FileDiff]) -> Iterator[Defect]:
    """Find what makes a patch unfit for use although git reads it."""
    yield from _twice(diffs)
    links = {diff.new_path for diff in diffs if diff.new_path and diff.new_mode == SYMLINK}
    for diff in diffs:
        yield from _paths(diff)
        yield from _modes(diff)
        yield from _link(diff)
        for folder in _folders(diff):
            if folder in links:
                yield Defect(
                    diff.line, "symlink-through", f"{diff.path} lies behind {folder}, a link made here"
                )
        for before, after in pairwise(diff.hunks):
            yield from _order(before, after)
        yield from _newline_marks(diff)


def _twice(diffs: Sequence[FileDiff]) -> Iterator[Defect]:
    """A path twice, except that git writes a change of type as a deletion and a creation."""
    seen: dict[str, FileDiff] = {}
    for diff in diffs:
        for path in {diff.old_path, diff.new_path} - {None}:
            assert path is not None
            first = seen.get(path)
            source = diff.action == "copy" and path == diff.old_path
            pair = first is not None and (first.action, diff.action) == ("delete", "create")
            if first is not None and not pair and not source and not _swaps(first, diff, path):
                yield Defect(diff.line, "duplicate-file", f"{path} is in line {first.line} already")
            if not source:
                seen[path] = diff


def _swaps(first: FileDiff, second: FileDiff, path: str) -> bool:
    """One moves away what the other one puts there: no file is changed twice."""
    away, there = (first, second) if first.old_path == path else (second, first)
    return away.action in ("rename", "delete") and away.old_path == path and there.old_path != path


def _paths(diff: FileDiff) -> Iterator[Defect]:
    for path in {diff.old_path, diff.new_path} - {None}:
        assert path is not None
        if wrong := wrong_path(path):
            yield Defect(diff.line, wrong.rule, f"{path!r} {wrong.what}")


def _modes(diff: FileDiff) -> Iterator[Defect]:
    for mode in {diff.old_mode, diff.new_mode} - {None, SYMLINK} - _FILES:
        assert mode is not None
        bits = int(mode, 8)
        if bits & 0o7000:
            yield Defect(
                diff.line, "set-uid", f"{diff.path}: mode {mode} has set-uid, set-gid or sticky bits"
            )
        elif bits & 0o170000 != 0o100000:
            what = "a submodule" if mode == "160000" else "neither a file nor a symbolic link"
            yield Defect(diff.line, "mode", f"{diff.path}: mode {mode} is {what}")
        else:
            yield Defect(diff.line, "unusual-mode", f"{diff.path}: mode {mode}; git has 100644 and 100755")


def _link(diff: FileDiff) -> Iterator[Defect]:
    """A symbolic link's target, as far as the patch shows it, must stay in the target directory."""
    is_link = SYMLINK in (diff.new_mode, None if diff.new_mode else diff.old_mode)
    if not is_link or diff.new_path is None:
        return
    if diff.binary:
        yield Defect(diff.line, "symlink-outside", f"{diff.path}: a link whose target is binary data")
    for hunk in diff.hunks:
        # The same lines as bytes and as the system reads them: up to a NUL.
        target = b"".join(hunk.side("+")).decode("utf-8", "surrogateescape")
        there = posixpath.normpath(posixpath.join(posixpath.dirname(diff.new_path), target))
        if posixpath.isabs(target) or there.split("/")[0] == ".." or wrong_path(there) or "\0" in target:
            yield Defect(hunk.line, "symlink-outside", f"{diff.path} would be a link to {target!r}")


def _folders(diff: FileDiff) -> Iterator[str]:
    path = diff.path
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _order(before: Hunk, after: Hunk) -> Iterator[Defect]:
    begins = [hunk.old_start - (hunk.old_count > 0) for hunk in (before, after)]
    if begins[1] < begins[0]:
        what = f"the hunk for line {after.old_start} stands behind the one for line {before.old_start}"
        yield Defect(after.line, "hunk-order", what)
    elif begins[1] < begins[0] + before.old_count:
        end = begins[0] + before.old_count
        what = f"the hunk begins at line {after.old_start}, and the one above goes on to line {end}"
        yield Defect(after.line, "hunk-overlap", what)


_MARKED = re.compile(rb"^([ +-]).*\n\\ .*\n([ +-])", re.MULTILINE)


def _newline_marks(diff: FileDiff) -> Iterator[Defect]:
    """A line without a newline is a file's last: after it, only the other side may go on."""
    for hunk in diff.hunks:
        for mark in _MARKED.finditer(hunk.body):
            if (mark[1], mark[2]) != (b"-", b"+"):
                line = hunk.line + hunk.body.count(b"\n", 0, mark.end()) + 1
                yield Defect(line, "newline-mark", "the file goes on after a line said to be its last")
