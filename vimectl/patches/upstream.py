"""Recognise that a file has what a patch would do already, although the file as a whole is unknown."""

from __future__ import annotations

from io import BytesIO

from vimectl.patches.series import Patch, Series


def contains(series: Series, patch: Patch, path: str, content: bytes | None) -> bool:
    """Whether every hunk of the patch for ``path`` is in ``content``: what it leads to stands there with all
    its context, at whatever line, in the order of the hunks. Errors are those of ``hunks.read``."""
    from vimectl.patches.content import diffs  # only who meets unknown content reads patches

    diff = diffs(series.directory / f"{patch.id}.patch").get(path)
    if content is None or diff is None or diff.action != "modify":
        return False
    lines = BytesIO(content).readlines()
    place = 0
    for hunk in diff.hunks:
        side = hunk.side("+")
        found = _find(lines, side, place) if side else None
        if found is None:
            return False
        place = found + len(side)
    return bool(diff.hunks)


def _find(lines: list[bytes], wanted: list[bytes], start: int) -> int | None:
    for place in range(start, len(lines) - len(wanted) + 1):
        if lines[place : place + len(wanted)] == wanted:
            return place
    return None
