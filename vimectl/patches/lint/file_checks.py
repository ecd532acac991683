"""Check a patch file on its own: context, positions, line endings, blob ids, and damage by mail programs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from vimectl.patches.blobs import blob_id
from vimectl.patches.patchfile.file_diff import Defect, FileDiff, PatchFile

# The default of git and diff. More context (whole functions) is allowed, but not required.
_USUAL_CONTEXT = 3
_ID = re.compile(r"[0-9a-f]{4,40}")

# Header lines of a file that was converted to CRLF. What follows the ranges of a hunk is content.
_CRLF_HEADER = re.compile(rb"^(?:diff --git .*|@@ -[\d,+ ]+@@|--- .*\r\n\+\+\+ .*)\r$", re.MULTILINE)

# Lines of a hunk begin with a blank, + or -, so that most of these cannot match file content.
_MAIL_DAMAGE = [
    (rule, re.compile(pattern, re.MULTILINE))
    for rule, pattern in (
        ("utf-16", rb"\A(?:\xff\xfe|\xfe\xff)"),
        ("format-flowed", rb"(?i)^Content-Type:.*format=\"?flowed"),
        ("html", rb"(?i)\A\s*<(?:div|pre|p|br|span)\b|^<(?:!doctype|html|head|body)\b"),
        ("html", rb"(?i)^Content-Type:\s*text/html"),
        ("html", rb"^&(?:lt|gt|amp|#43|#45|nbsp);"),
        ("from-escaped", rb"^[ +-]?>From "),
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
    usual = min(_USUAL_CONTEXT, max((max(hunk.context()) for hunk in diff.hunks), default=0))
    for hunk in diff.hunks:
        leading, trailing = hunk.context()
        last = hunk is diff.hunks[-1]
        if trailing == 0 and not last:
            yield Defect(hunk.line, "zero-context")
        elif (leading < usual and hunk.old_start > 1) or (trailing < usual and not last):
            message = f"{leading} lines of context before and {trailing} after the change, elsewhere {usual}"
            yield Defect(hunk.line, "missing-context", message)
        # A line without a line feed is the last one for certain, as in a symbolic link.
        elif (trailing < leading or trailing == 0) and all(text.endswith(b"\n") for _, text in hunk.content):
            yield Defect(hunk.line, "end-of-file")


def _check_positions(diff: FileDiff) -> Iterator[Defect]:
    above = 0
    for hunk in diff.hunks:
        expected = hunk.begin + (hunk.new_count > 0) + above
        if hunk.new_start != expected:
            yield Defect(
                hunk.line, "hunk-position", f"states +{hunk.new_start}, the hunks above imply +{expected}"
            )
        above += hunk.new_count - hunk.old_count


def _check_line_endings(diff: FileDiff) -> Iterator[Defect]:
    first = None
    for hunk in diff.hunks:
        for number, (_, text) in enumerate(hunk.content):
            ending = "CRLF" if text.endswith(b"\r\n") else "LF" if text.endswith(b"\n") else None
            first = first or ending
            if ending and ending != first:
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


def check_mail_damage(patch: PatchFile, mailed: bool = False) -> Iterator[Defect]:
    """Report the first trace of each kind of damage by mail programs, editors and web pages.

    ``mailed``: the text was in a mail, which may end with a signature.
    """
    text = patch.text
    traces = [(rule, pattern.search(text)) for rule, pattern in _MAIL_DAMAGE]
    traces.append(("crlf-patch", converted_to_crlf(patch)))
    if any(defect.fatal for defect in patch.defects):
        traces.append(("quoted-printable", _ENCODING.search(text)))
    if not _NOT_ENCODED.search(text):
        traces.append(("quoted-printable", _ENCODED.search(text)))
    if not mailed:
        traces.append(("mail-signature", _SIGNATURE.search(text, max(0, len(text) - _SIGNATURE_BYTES))))
    for rule, found in traces:
        if found:
            yield Defect(text.count(b"\n", 0, found.start()) + 1, rule)
    for hunk in (hunk for diff in patch.diffs for hunk in diff.hunks):
        if hunk.content[-1] in (("-", b"- \n"), ("-", b"-\n")):
            yield Defect(hunk.line_of(len(hunk.content) - 1), "mail-signature")


def converted_to_crlf(patch: PatchFile) -> re.Match[bytes] | None:
    """Return the first header line in CRLF; None if a line of a file ends in LF, as in what svn writes."""
    lines = (line for diff in patch.diffs for hunk in diff.hunks for _, line in hunk.content)
    if any(line.endswith(b"\n") and not line.endswith(b"\r\n") for line in lines):
        return None
    return _CRLF_HEADER.search(patch.text)
