"""What hunks and index lines say by themselves: context, positions, line ends, ids that cannot be true."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate

from vimectl.patches.blobs import blob_id
from vimectl.patches.patchfile import Defect, FileDiff, Hunk

# What git and diff write when nobody asks for another number; more (whole functions) is no rule to hold to.
_USUAL_CONTEXT = 3
_ID = re.compile(r"[0-9a-f]{4,40}")


def check(diff: FileDiff) -> Iterator[Defect]:
    """Find what is wrong with one file's diff without looking at the file."""
    yield from _context(diff)
    yield from _positions(diff)
    yield from _line_ends(diff)
    yield from _ids(diff)


def _context(diff: FileDiff) -> Iterator[Defect]:
    """Less context than elsewhere is right only where the file begins or ends."""
    if diff.action in ("create", "delete"):
        return
    contexts = [hunk.context() for hunk in diff.hunks]
    usual = min(_USUAL_CONTEXT, max((max(context) for context in contexts), default=0))
    for number, (hunk, (leading, trailing)) in enumerate(zip(diff.hunks, contexts, strict=True)):
        last = number == len(diff.hunks) - 1
        begins = hunk.old_start <= 1
        if leading == trailing == 0 and not (begins and last):
            yield Defect(
                hunk.line, "zero-context", "a hunk without context: nothing proves that its place is right"
            )
        elif leading < usual and not begins:
            what = f"{leading} lines of context before the change, elsewhere {usual}, not at the file's begin"
            yield Defect(hunk.line, "missing-context", what)
        elif trailing < usual and not last:
            what = f"{trailing} lines of context behind the change, elsewhere {usual}, and the file goes on"
            yield Defect(hunk.line, "missing-context", what)
        elif trailing < leading or leading == trailing == 0:
            what = f"{trailing} lines of context behind the change: it fits only at the end of {diff.path}"
            yield Defect(hunk.line, "end-of-file", what)


def _positions(diff: FileDiff) -> Iterator[Defect]:
    grown = accumulate((hunk.new_count - hunk.old_count for hunk in diff.hunks), initial=0)
    for hunk, above in zip(diff.hunks, grown, strict=False):
        old, new = (start - (count > 0) for start, count in _ranges(hunk))
        if new - old != above:
            what = f"says +{hunk.new_start}, the hunks above make it +{hunk.new_start + above - (new - old)}"
            yield Defect(hunk.line, "hunk-position", what)


def _ranges(hunk: Hunk) -> tuple[tuple[int, int], tuple[int, int]]:
    return (hunk.old_start, hunk.old_count), (hunk.new_start, hunk.new_count)


def _line_ends(diff: FileDiff) -> Iterator[Defect]:
    first: bytes | None = None
    for hunk in diff.hunks:
        lines = hunk.body.split(b"\n")
        for number, line in enumerate(lines[:-1], 1):
            # The line above a mark of a missing newline has no line end of its own.
            if line.startswith(b"\\") or lines[number].startswith(b"\\"):
                continue
            end = b"CRLF" if line.endswith(b"\r") else b"LF"
            first = first or end
            if end != first:
                what = f"{diff.path}: this line ends in {end.decode()}, those above in {first.decode()}"
                yield Defect(hunk.line + number, "mixed-line-endings", what)
                return


def _ids(diff: FileDiff) -> Iterator[Defect]:
    for side, path, id_ in (("old", diff.old_path, diff.old_blob), ("new", diff.new_path, diff.new_blob)):
        if id_ is None:
            continue
        if not _ID.fullmatch(id_):
            yield Defect(diff.line, "blob-id", f"{id_!r} on the index line is no blob id")
        elif (path is None) != (not id_.strip("0")):
            what = f"the {side} id of {diff.path} is {id_}, and {'a file' if path else 'no file'} is meant"
            yield Defect(diff.line, "blob-id", what)
        elif (content := _whole(diff, side)) is not None and not blob_id(content).startswith(id_):
            yield Defect(diff.line, "blob-id", f"{diff.path} has the id {blob_id(content)}, not {id_}")
    if diff.old_blob and diff.old_blob == diff.new_blob and (diff.hunks or diff.binary):
        yield Defect(diff.line, "blob-id", f"{diff.path} changes, and the index line has the same id twice")


def _whole(diff: FileDiff, side: str) -> bytes | None:
    """A side's content, where the diff has all of it."""
    if diff.binary is not None:
        half = diff.binary[0] if diff.binary and side == "new" else None
        return half.data if half and half.method == "literal" else None
    if (side, diff.action) in (("new", "create"), ("old", "delete")):
        return b"".join(line for hunk in diff.hunks for line in hunk.side("+" if side == "new" else "-"))
    return None
