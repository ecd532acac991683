"""What mail programs, editors and web pages do to a patch on its way."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

from vimectl.patches.patchfile import Defect, PatchFile

# Lines of a hunk begin with a blank, + or -, so that none of the others is content.
_NOISE = [
    ("crlf-patch", re.compile(rb"^(?:diff --git .*|@@ -[\d,+ ]+@@)\r$", re.M), "a header line ends in CRLF"),
    (
        "quoted-printable",
        re.compile(rb"^Content-Transfer-Encoding:\s*(?:quoted-printable|base64)", re.M | re.I),
        "the text is still encoded for mail",
    ),
    (
        "format-flowed",
        re.compile(rb"^Content-Type:.*format=\"?flowed", re.M | re.I),
        "lines may be wrapped anew",
    ),
    (
        "html",
        re.compile(
            rb"^(?:<(?:!doctype|html|head|body|div|pre|p|br|span)\b|Content-Type:\s*text/html)", re.M | re.I
        ),
        "HTML, not the text of a patch",
    ),
    ("html", re.compile(rb"^(?:&(?:lt|gt|amp|#43|#45|nbsp);)", re.M), "a line begins with an HTML entity"),
    ("from-escaped", re.compile(rb"^[ +-]?>From ", re.M), "a mail program wrote >From for From"),
]
# In quoted-printable every = is one of these; a patch of a test for mails has others as well.
_ENCODED = re.compile(rb"^[ +-].*=3D", re.M)
_NOT_ENCODED = re.compile(rb"^[ +-].*=(?![0-9A-F]{2}|\r?$)", re.M)
_SIGNATURE = re.compile(rb"^-- ?\n(?:.*\n?){0,4}\Z", re.M)
# What a signature can be looked for in: more than any is long.
_END = 1000


def check(data: bytes, patch: PatchFile) -> Iterator[Defect]:
    """Find the first trace of each kind."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        yield Defect(1, "byte-order-mark", "the file is UTF-16, as some shells write what a command prints")
    elif data.startswith(codecs.BOM_UTF8):
        yield Defect(
            1, "byte-order-mark", "a mark before the first line: nobody knows that line for what it is"
        )
    for rule, pattern, message in _NOISE:
        if found := pattern.search(data):
            yield Defect(_line(data, found.start()), rule, message)
    if (found := _ENCODED.search(data)) and not _NOT_ENCODED.search(data):
        message = "=3D is how quoted-printable writes =, and there is no other ="
        yield Defect(_line(data, found.start()), "quoted-printable", message)
    end = data[-_END:]
    if found := _SIGNATURE.search(end):
        yield Defect(
            _line(data, len(data) - len(end) + found.start()), "mail-signature", "a mail's signature"
        )
    for diff in patch.diffs:
        for hunk in diff.hunks:
            if hunk.body.endswith((b"\n-- \n", b"\n--\n")):
                line = hunk.line + hunk.body.count(b"\n")
                message = "the hunk ends with '-- ', as a mail's signature begins: it may not belong to it"
                yield Defect(line, "mail-signature", message)


def _line(data: bytes, place: int) -> int:
    return data.count(b"\n", 0, place) + 1
