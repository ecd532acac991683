"""Read a unified diff and apply one file of it to bytes, forward or in reverse.

There is no fuzz and no offset: a patch is applied only to the content whose blob id the series states,
so every hunk either lies exactly where it says or the patch file itself is wrong.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from vimectl.errors import BadInput

if TYPE_CHECKING:
    from unidiff.patch import Hunk, PatchedFile


def read(path: Path) -> dict[str, PatchedFile]:
    """Return the file diffs of a patch file by path. Raises BadInput when it is not a unified diff."""
    # Imported here: what only judges states by blob id starts without it.
    from unidiff.errors import UnidiffParseError
    from unidiff.patch import PatchSet

    # Latin-1 maps every byte to one character and back, so content in any encoding survives.
    lines = [line.decode("latin-1") for line in BytesIO(path.read_bytes())]
    try:
        return {diff.path: diff for diff in PatchSet(lines)}
    except UnidiffParseError as e:
        raise BadInput(f"{path}: not a unified diff: {e}") from e


def apply(content: bytes | None, diff: PatchedFile, *, reverse: bool = False) -> bytes | None:
    """Return ``content`` with every hunk of ``diff`` applied. None stands for a file that does not exist.

    Raises:
        BadInput: a hunk does not lie where it says; the message gives its line in the file.
    """
    lines = BytesIO(content or b"").readlines()
    result: list[bytes] = []
    done = 0
    for hunk in diff:
        old, new = _side(hunk, "-"), _side(hunk, "+")
        start = hunk.source_start
        if reverse:
            old, new = new, old
            start = hunk.target_start
        # A range of no lines names the line after which it lies; any other, its first line.
        begin = start - 1 if old else start
        if lines[begin : begin + len(old)] != old:
            raise BadInput(f"{diff.path}: the hunk for line {start} does not fit")
        result += lines[done:begin] + new
        done = begin + len(old)
    # By name, not by is_added_file: an empty file has the same empty range as one that does not exist.
    gone = (diff.source_file if reverse else diff.target_file) == "/dev/null"
    return None if gone else b"".join(result + lines[done:])


def _side(hunk: Hunk, sign: str) -> list[bytes]:
    """The lines that a hunk has before (``-``) or after (``+``), each with its line end if it has one."""
    side: list[bytes] = []
    last = ""
    for line in hunk:
        if line.line_type == "\\":  # "No newline at end of file" is said of the line above
            if last in (" ", sign):
                side[-1] = side[-1].removesuffix(b"\n")
            continue
        last = line.line_type
        if last in (" ", sign):
            side.append(line.value.encode("latin-1"))
    return side
