"""Read a patch of a series and apply one file of it to bytes, forward or in reverse.

There is no fuzz and no offset: a patch is applied only to the content whose blob id the series states,
so every hunk either lies exactly where it says or the patch file itself is wrong.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from vime_runtime.spec.errors import UsageError

from vimectl.patches.patchfile import FileDiff, binary, strict


def read(path: Path) -> dict[str, FileDiff]:
    """Return the file diffs of a patch file by path.

    A rename or copy is not a patch of one file: in a series it is a deletion and a creation.
    Raises UsageError when the file has any error that lint knows of a patch file by itself.
    """
    found: dict[str, FileDiff] = {}
    for diff in strict.read(path).diffs:
        if diff.path in found:  # git's way of saying that a file becomes a symbolic link, or the reverse
            raise UsageError(f"{path}:{diff.line}: {diff.path} changes its type, which no series can say")
        if diff.action in ("rename", "copy"):
            raise UsageError(
                f"{path}:{diff.line}: a {diff.action}, and a series has none",
                "vimectl patch import writes it as what it does to each file",
            )
        found[diff.path] = diff
    return found


def apply(content: bytes | None, diff: FileDiff, *, reverse: bool = False) -> bytes | None:
    """Return ``content`` with every hunk of ``diff`` applied. None stands for a file that does not exist.

    Raises:
        UsageError: a hunk does not lie where it says; the message gives its line in the file.
    """
    if diff.binary is not None:
        return _binary(content, diff, reverse)
    lines = BytesIO(content or b"").readlines()
    result: list[bytes] = []
    done = 0
    for hunk in diff.hunks:
        old, new = hunk.side("-"), hunk.side("+")
        start = hunk.old_start
        if reverse:
            old, new = new, old
            start = hunk.new_start
        # A range of no lines names the line after which it lies; any other, its first line.
        begin = start - 1 if old else start
        if begin < done or lines[begin : begin + len(old)] != old:
            raise UsageError(f"{diff.path}: the hunk for line {start} does not fit")
        result += lines[done:begin] + new
        done = begin + len(old)
    gone = (diff.old_path if reverse else diff.new_path) is None
    return None if gone else b"".join(result + lines[done:])


def _binary(content: bytes | None, diff: FileDiff, reverse: bool) -> bytes | None:
    if (diff.old_path if reverse else diff.new_path) is None:
        return None
    halves = diff.binary or ()
    if len(halves) <= reverse:
        raise UsageError(f"{diff.path}: the data that leads {'back' if reverse else 'there'} is missing")
    try:
        return binary.patched(content or b"", halves[reverse])
    except binary.Corrupt as e:
        raise UsageError(f"{diff.path}: {e}") from e
