"""Repair what editors, mail programs and hands do to patch files, without changing what a patch does.

A patch that git applies gives the same result afterwards. What git refuses is repaired only where its text
leaves no doubt: counts, the last line feed, empty context lines at the end, line endings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from vimectl.patches.lint.file_checks import converted_to_crlf
from vimectl.patches.patchfile import hunks
from vimectl.patches.patchfile.file_diff import PatchFile
from vimectl.patches.patchfile.reader import load, parse
from vimectl.patches.patchfile.sources import read_file
from vimectl.patches.release_files import PatchedRelease
from vimectl.util.output_file import write_output


@dataclass(frozen=True)
class Repair:
    """A repair at a line of the patch file as it was."""

    line: int
    rule: str
    message: str


def repair_file(path: Path, release: PatchedRelease | None = None, strip: int | None = None) -> list[Repair]:
    """Repair a patch file in place, and return what was changed.

    A mail that is encoded or has the line endings of its transport is left as it is. The files of ``release``
    tell if CRLF is part of the content. Raises UsageError when the file is unreadable, or a link, which may
    lead to any file; MissingRequirement when it cannot be written.
    """
    data = load(path)
    converted = converted_to_crlf(parse(data, strip))
    if any(one.encoded or (one.mail and converted) for one in read_file(path, strip)):
        return []
    fixed, repairs = repair_text(data, release, strip)
    if repairs:
        write_output(path, fixed)
    return repairs


def repair_text(
    data: bytes, release: PatchedRelease | None = None, strip: int | None = None
) -> tuple[bytes, list[Repair]]:
    """Return the repaired text of a patch file, and what was changed."""
    repairs: list[Repair] = []
    patch = parse(data, strip)
    text = patch.text
    if text != data:
        repairs.append(Repair(1, "byte-order-mark", "removed the mark"))
    if found := converted_to_crlf(patch):
        line = text.count(b"\n", 0, found.start()) + 1
        text, what = _without_crlf(patch, release)
        repairs.append(Repair(line, "crlf-patch", what))
        patch = parse(text, strip)
    rules = {defect.rule for defect in patch.defects if defect.fatal}
    if rules & {"no-final-newline", "lost-context", "hunk-count"} and not text.endswith(b"\n"):
        text += b"\n"
        repairs.append(Repair(text.count(b"\n"), "no-final-newline", "added the last line feed"))
    lines = BytesIO(text).readlines()
    for defect in parse(text, strip).defects:
        if defect.rule == "lost-context":
            missing = int(re.findall(r"\d+", defect.message)[0])
            lines += [b" \n"] * missing
            repairs.append(Repair(defect.line, defect.rule, f"added {missing} empty context lines"))
        elif defect.rule == "hunk-count" and defect.fatal:
            start = defect.line - 1
            stated = hunks.ranges(lines[start]) or (0, 0, 0, 0)
            old_count, new_count = hunks.count(lines, start)
            old, _, heading = lines[start].removeprefix(b"@@ ").partition(b" @@")
            new = b"-%d,%d +%d,%d" % (stated[0], old_count, stated[2], new_count)
            if new != old:
                lines[start] = b"@@ %s @@%s" % (new, heading)
                what = f"{old.decode()} is {new.decode()}"
                repairs.append(Repair(defect.line, defect.rule, what))
    return b"".join(lines), repairs


def _without_crlf(patch: PatchFile, release: PatchedRelease | None) -> tuple[bytes, str]:
    """Return the text without carriage returns, except in hunks of files that have them."""
    files = [release.file(diff.old_path) for diff in patch.diffs if diff.old_path] if release else []
    if not any(file and b"\r\n" in file.content for file in files):
        return patch.text.replace(b"\r\n", b"\n"), "converted all lines from CRLF to LF"
    lines = BytesIO(patch.text).readlines()
    kept = {
        number
        for diff in patch.diffs
        for hunk in diff.hunks
        for number in range(hunk.line + 1, hunk.line_of(len(hunk.content)))
    }
    converted = (
        line if number in kept else line.replace(b"\r\n", b"\n") for number, line in enumerate(lines, 1)
    )
    return b"".join(converted), "converted the header lines from CRLF to LF; the files have CRLF"
