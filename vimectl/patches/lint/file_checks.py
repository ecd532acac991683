"""Check a patch file on its own: context, positions, line endings, blob ids, and damage by mail programs."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from itertools import accumulate

from vimectl.patches.blobs import blob_id
from vimectl.patches.patchfile.file_diff import Defect, FileDiff, PatchFile

# The default of git and diff. More context (whole functions) is allowed, but not required.
_USUAL_CONTEXT = 3
_ID = re.compile(r"[0-9a-f]{4,40}")

# Header lines of a file that was converted to CRLF. What follows the ranges of a hunk is content.
_CRLF_HEADER = re.compile(rb"^(?:diff --git .*|@@ -[\d,+ ]+@@|--- .*\r\n\+\+\+ .*)\r$", re.MULTILINE)

# Lines of a hunk begin with a blank, + or -, so that most of these cannot match file content.
_MAIL_DAMAGE = [
    (rule, re.compile(pattern, re.MULTILINE), message)
    for rule, pattern, message in (
        ("format-flowed", rb"(?i)^Content-Type:.*format=\"?flowed", "lines may be rewrapped"),
        (
            "html",
            rb"(?i)\A\s*<(?:div|pre|p|br|span)\b|^<(?:!doctype|html|head|body)\b|^Content-Type:\s*text/html",
            "HTML, not the text of a patch",
        ),
        ("html", rb"^(?:&(?:lt|gt|amp|#43|#45|nbsp);)", "a line begins with an HTML entity"),
        ("from-escaped", rb"^[ +-]?>From ", "a mail program wrote >From for From"),
    )
]
_ENCODING = re.compile(rb"(?i)^Content-Transfer-Encoding:\s*(?:quoted-printable|base64)", re.M)
# In quoted-printable text every = is one of these; a patch of a test for mails has others as well.
_ENCODED = re.compile(rb"^[ +-].*=3D", re.M)
_NOT_ENCODED = re.compile(rb"^[ +-].*=(?![0-9A-F]{2}|\r?$)", re.M)
_SIGNATURE = re.compile(rb"^-- ?\n(?:.*\n?){0,4}\Z", re.M)
# Signatures are searched in this many bytes at the end of the file.
_SIGNATURE_BYTES = 1000


def check_diff(diff: FileDiff) -> Iterator[Defect]:
    """Check the diff of one file without looking at the file."""
    yield from _check_context(diff)
    yield from _check_positions(diff)
    yield from _check_line_endings(diff)
    yield from _check_blob_ids(diff)


def _check_context(diff: FileDiff) -> Iterator[Defect]:
    """Report hunks with less context than usual, which is right only where the file starts or ends."""
    if diff.action in ("create", "delete"):
        return
    contexts = [hunk.context() for hunk in diff.hunks]
    usual = min(_USUAL_CONTEXT, max((max(context) for context in contexts), default=0))
    for number, (hunk, (leading, trailing)) in enumerate(zip(diff.hunks, contexts, strict=True)):
        last = number == len(diff.hunks) - 1
        first_line = hunk.old_start <= 1
        if trailing == 0 and not last:
            message = "no context after the change: git applies this hunk only at the end of the file"
            yield Defect(hunk.line, "zero-context", message)
        elif leading < usual and not first_line:
            message = f"{leading} lines of context before the change, elsewhere {usual}, not at the start"
            yield Defect(hunk.line, "missing-context", message)
        elif trailing < usual and not last:
            message = f"{trailing} lines of context after the change, elsewhere {usual}, not at the end"
            yield Defect(hunk.line, "missing-context", message)
        elif trailing < leading or leading == trailing == 0:
            message = f"{trailing} lines of context after the change: it fits only at the end of {diff.path}"
            yield Defect(hunk.line, "end-of-file", message)


def _check_positions(diff: FileDiff) -> Iterator[Defect]:
    grown = accumulate((hunk.new_count - hunk.old_count for hunk in diff.hunks), initial=0)
    for hunk, above in zip(diff.hunks, grown, strict=False):
        old = hunk.old_start - (hunk.old_count > 0)
        new = hunk.new_start - (hunk.new_count > 0)
        if new - old != above:
            message = (
                f"states +{hunk.new_start}, the hunks above imply +{hunk.new_start + above - (new - old)}"
            )
            yield Defect(hunk.line, "hunk-position", message)


def _check_line_endings(diff: FileDiff) -> Iterator[Defect]:
    first = ""
    for hunk in diff.hunks:
        for number, (_, text) in enumerate(hunk.content):
            if not text.endswith(b"\n"):
                continue
            ending = "CRLF" if text.endswith(b"\r\n") else "LF"
            first = first or ending
            if ending != first:
                message = f"{diff.path}: this line ends in {ending}, those above in {first}"
                yield Defect(hunk.line_of(number), "mixed-line-endings", message)
                return


def _check_blob_ids(diff: FileDiff) -> Iterator[Defect]:
    versions = (("old", diff.old_path, diff.old_blob), ("new", diff.new_path, diff.new_blob))
    for version, path, id_ in versions:
        if id_ is None:
            continue
        if not _ID.fullmatch(id_):
            yield Defect(diff.line, "blob-id", f"{id_!r} on the index line is no blob id")
        elif (path is None) != (not id_.strip("0")):
            what = "a file" if path else "no file"
            yield Defect(
                diff.line, "blob-id", f"the {version} id of {diff.path} is {id_}, but there is {what}"
            )
        elif (content := _content(diff, version)) is not None and not blob_id(content).startswith(id_):
            yield Defect(diff.line, "blob-id", f"{diff.path} has the id {blob_id(content)}, not {id_}")
    if diff.old_blob and diff.old_blob == diff.new_blob and (diff.hunks or diff.binary):
        yield Defect(diff.line, "blob-id", f"{diff.path} changes, but the index line has the same id twice")


def _content(diff: FileDiff, version: str) -> bytes | None:
    """Return the old or new content of a file if the diff has all of it."""
    if diff.binary is not None:
        half = diff.binary[0] if diff.binary and version == "new" and diff.new_path else None
        return half.data if half and half.method == "literal" else None
    if version == "new" and diff.action == "create":
        return b"".join(line for hunk in diff.hunks for line in hunk.new_lines())
    if version == "old" and diff.action == "delete":
        return b"".join(line for hunk in diff.hunks for line in hunk.old_lines())
    return None


def check_mail_damage(data: bytes, patch: PatchFile, mailed: bool = False) -> Iterator[Defect]:
    """Report the first trace of each kind of damage by mail programs, editors and web pages.

    ``mailed``: the text was in a mail, which may end with a signature.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        yield Defect(1, "utf-16", "the file is UTF-16, as some shells write the output of a command")
    for rule, pattern, message in _MAIL_DAMAGE:
        if found := pattern.search(data):
            yield Defect(_line_at(data, found.start()), rule, message)
    if found := converted_to_crlf(data, patch):
        message = "a header line ends in CRLF: the file was converted; `vimectl patch lint --fix` converts it"
        yield Defect(_line_at(data, found.start()), "crlf-patch", message)
    if any(defect.fatal for defect in patch.defects) and (found := _ENCODING.search(data)):
        yield Defect(_line_at(data, found.start()), "quoted-printable", "the text is still encoded for mail")
    if (found := _ENCODED.search(data)) and not _NOT_ENCODED.search(data):
        message = "=3D is how quoted-printable writes =, and there is no other ="
        yield Defect(_line_at(data, found.start()), "quoted-printable", message)
    end = data[-_SIGNATURE_BYTES:]
    if not mailed and (found := _SIGNATURE.search(end)):
        line = _line_at(data, len(data) - len(end) + found.start())
        yield Defect(line, "mail-signature", "a mail's signature")
    for diff in patch.diffs:
        for hunk in diff.hunks:
            if hunk.content[-1] in (("-", b"- \n"), ("-", b"-\n")):
                line = hunk.line_of(len(hunk.content) - 1)
                message = "the hunk ends with '-- ', as a mail's signature begins: it may not belong to it"
                yield Defect(line, "mail-signature", message)


def converted_to_crlf(data: bytes, patch: PatchFile) -> re.Match[bytes] | None:
    """Return the first header line in CRLF; None if a line of a file ends in LF, as in what svn writes."""
    lines = (line for diff in patch.diffs for hunk in diff.hunks for _, line in hunk.content)
    if any(line.endswith(b"\n") and not line.endswith(b"\r\n") for line in lines):
        return None
    return _CRLF_HEADER.search(data)


def _line_at(data: bytes, position: int) -> int:
    return data.count(b"\n", 0, position) + 1
