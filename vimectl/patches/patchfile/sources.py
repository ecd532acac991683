"""Find the patches in a file, mailbox, folder or quilt series, in the order in which they apply.

A mail is decoded as `git am` does. Text that only resembles a mail, such as a DEP-3 header with a Subject, is
left as it is, so that nothing of it is lost.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vime_runtime.spec.errors import UsageError

from vimectl.patches.patchfile.quilt import LeveledFile, quilt_series
from vimectl.patches.patchfile.reader import BOM, load

if TYPE_CHECKING:
    from email.message import EmailMessage

SUFFIXES = (".patch", ".diff", ".eml", ".mbox")
# The line before each message of a mailbox: "From <sender> Mon Sep 17 00:00:00 2001".
_ENVELOPE = re.compile(rb"^(?=From \S.*\d\d:\d\d.*\d{4}[ \t]*\r?\n)", re.MULTILINE)
# The head of a mail has nothing but fields and their continuation lines, up to the first empty line.
_HEAD = re.compile(rb"(?:From .*\n)?(?:[!-9;-~]+:.*\n(?:[ \t].*\n)*)+(?=\r?\n)")
_MAIL_FIELD = re.compile(rb"^(?:From|Date|Message-ID|MIME-Version|Content-[\w-]+):", re.MULTILINE | re.I)
# Fields of DEP-3 that no mail has.
_DEP3 = re.compile(
    rb"^(?:Description|Origin|Author|Forwarded|Bug(?:-\w+)?|Last-Update|Applied-Upstream):", re.MULTILINE
)
_DIFF = re.compile(rb"^(?:diff --git |--- .*\n\+\+\+ )", re.MULTILINE)


@dataclass(frozen=True)
class PatchSource:
    """The text of one patch.

    Attributes:
        name: the file's name without its suffix; empty for a message of a mailbox.
        origin: names the patch in messages.
        first_line: the line of the file at which ``data`` begins.
        data: the text to parse; of a mail, the decoded text without the head.
        strip: the number of leading folders to strip from names; None: as git guesses.
        mail: the message, if the text is one.
        encoded: the lines of ``data`` are not lines of the file, because the mail is encoded.
    """

    name: str
    origin: str
    first_line: int
    data: bytes
    strip: int | None = None
    mail: EmailMessage | None = None
    encoded: bool = False

    def line(self, line: int) -> int:
        """Return the line of the file that has a line of ``data``, or the first one if it is encoded."""
        return self.first_line if self.encoded else self.first_line + line - 1

    @property
    def is_cover_letter(self) -> bool:
        """Return True for the message 0 of a mailed series, which has no patch."""
        subject = str(self.mail["Subject"]) if self.mail else ""
        return bool(re.match(r"\[[^]]*\b0+/\d+\]", subject)) and not _DIFF.search(self.data)


def read_sources(path: Path, strip: int | None = None) -> list[PatchSource]:
    """Return the patches in ``path``. Arguments and errors are those of ``patch_files`` and ``read_file``."""
    return [source for file, level in patch_files(path, strip) for source in read_file(file, level)]


def patch_folders(path: Path) -> list[Path]:
    """Return ``path``, or if it is a folder without patches the folders below it that have some.

    Hidden folders are left out. Each folder has its series.
    """
    found = []
    for folder, below, names in os.walk(path):
        below[:] = sorted(name for name in below if not name.startswith("."))
        if "series" in names or any(Path(name).suffix in SUFFIXES for name in names):
            found.append(Path(folder))
            below.clear()
    return found or [path]


def patch_files(path: Path, strip: int | None = None) -> list[LeveledFile]:
    """Return the files with patches in ``path``, each with its strip level. Raises UsageError for none.

    ``strip`` takes precedence over the options in a quilt series.
    """
    series = path / "series" if path.is_dir() else path
    if series.name == "series" and series.is_file():
        files = quilt_series(series)
    elif path.is_dir():
        files = [(one, None) for one in sorted(path.iterdir()) if one.suffix in SUFFIXES and one.is_file()]
    else:
        files = [(path, None)]
    if not files:
        raise UsageError(f"{path}: there are no patches here", "give a patch, a mailbox or a quilt series")
    return [(file, level if strip is None else strip) for file, level in files]


def read_file(path: Path, strip: int | None = None) -> Iterator[PatchSource]:
    """Yield the patch in a file, or the patches in a mailbox. Raises as ``reader.load`` does."""
    data = load(path)
    before, *mails = _ENVELOPE.split(data.removeprefix(BOM))
    if before or len(mails) < 2:
        yield _without_head(PatchSource(path.stem, str(path), 1, data, strip))
        return
    line = 1
    for number, mail in enumerate(mails, 1):
        yield _without_head(PatchSource("", f"{path}, message {number}", line, mail, strip))
        line += mail.count(b"\n")


def _without_head(source: PatchSource) -> PatchSource:
    """Return the decoded text of a mail; other text as it is. Raises UsageError for too many nested parts."""
    text = source.data.removeprefix(BOM)
    head = _mail_head(text)
    if not head:
        return source
    if b"\r\n" in head:  # as mail programs save it; its line endings are not those of the patched files
        text, head = (part.replace(b"\r\n", b"\n") for part in (text, head))
    from email.parser import BytesParser  # imported here because applying a series reads no mail
    from email.policy import default

    try:
        mail = BytesParser(policy=default).parsebytes(re.sub(rb"\AFrom .*\n", b"", text))
        encoding = str(mail["Content-Transfer-Encoding"] or "").lower()
        if mail.is_multipart() or encoding not in ("", "7bit", "8bit", "binary"):
            return replace(source, data=_decoded(mail), mail=mail, encoded=True)
    except RecursionError as e:
        message = f"{source.origin}: the parts of the mail are nested too deeply"
        raise UsageError(message, "save the patch itself in a file") from e
    first_line = source.first_line + head.count(b"\n") + 1
    return replace(source, first_line=first_line, data=text[len(head) + 1 :], mail=mail)


def _mail_head(text: bytes) -> bytes:
    """Return the head of a mail, up to the empty line; empty if the text is no mail."""
    found = _HEAD.match(text)
    if not found or _DEP3.search(found[0]) or not re.search(rb"^Subject:", found[0], re.MULTILINE | re.I):
        return b""
    return found[0] if found[0].startswith(b"From ") or _MAIL_FIELD.search(found[0]) else b""


def _decoded(mail: EmailMessage) -> bytes:
    """Return the text of all parts that may have a part of the patch, in their character sets."""
    texts = []
    for part in mail.walk():
        content = part.get_payload(decode=True)
        if not isinstance(content, bytes):  # a part that has parts itself
            continue
        plain = part.get_content_maintype() == "text" and part.get_content_subtype() != "html"
        if plain or _DIFF.search(content):
            texts.append(content if content.endswith(b"\n") else content + b"\n")
    return b"".join(texts)
