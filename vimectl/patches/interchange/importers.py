"""Find the patches that somebody gives: a quilt series, a folder of files, a mailbox, one file."""

from __future__ import annotations

import base64
import quopri
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from email.message import Message as Mail
from email.parser import BytesParser
from email.policy import default as DEFAULT
from email.utils import parsedate_to_datetime
from pathlib import Path

from vime_runtime.spec.errors import UsageError

from vimectl.patches.interchange.message import Message, from_mail, from_text
from vimectl.patches.patchfile import PatchFile, load, strict

# The mail header in which an exported patch keeps its id.
ID_HEADER = "X-Vimectl-Id"
NOBODY = "vimectl <vimectl@localhost>"
_FROM_LINE = re.compile(rb"^From .*\d\d:\d\d.*\d{4}[ \t]*\r?\n", re.MULTILINE)
_IS_MAIL = re.compile(rb"(?:From |[A-Za-z-]+:[ \t])")
_SUFFIXES = (".patch", ".diff", ".eml", ".mbox")


@dataclass(frozen=True)
class Incoming:
    """One patch: ``slug`` is what it can be called, ``where`` how messages call it."""

    slug: str
    where: str
    message: Message
    patch: PatchFile


def read(path: Path) -> list[Incoming]:
    """Return the patches in a file or folder, in the order in which they apply.

    Raises UsageError when there are none, or one has an error that lint knows.
    """
    if path.is_dir():
        files = _quilt(path / "series") if (path / "series").is_file() else _folder(path)
    elif path.name == "series":
        files = _quilt(path)
    else:
        files = [path]
    found = [patch for file in files for patch in _in_file(file)]
    if not found:
        raise UsageError(f"{path}: there are no patches here", "give a patch, a mailbox or a quilt series")
    return found


def _quilt(series: Path) -> list[Path]:
    """The patches that a quilt series lists. Raises UsageError for options that it cannot take over."""
    files = []
    for number, line in enumerate(series.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if any(option not in ("-p1", "-pab") for option in words[1:]):
            raise UsageError(
                f"{series}:{number}: {' '.join(words[1:])}: only -p1 is known", "refresh the patch"
            )
        file = series.parent / words[0]
        if not file.resolve().is_relative_to(series.parent.resolve()):
            raise UsageError(f"{series}:{number}: {words[0]} lies outside of the series' folder")
        files.append(file)
    return files


def _folder(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.suffix in _SUFFIXES and path.is_file())


def _in_file(path: Path) -> Iterator[Incoming]:
    data = load(path)
    starts = [found.start() for found in _FROM_LINE.finditer(data)]
    if not starts or starts[0]:
        yield _one(path.stem, str(path), data)
        return
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(data)], strict=True), 1):
        where = f"{path}, message {number}" if len(starts) > 1 else str(path)
        name = path.stem if len(starts) == 1 else ""
        yield _one(name, where, data[start:end])


def _one(name: str, where: str, data: bytes) -> Incoming:
    mail, text = _opened(data)
    patch = strict.checked(text, where)
    words = patch.header.decode("utf-8", "replace")
    if mail is None:
        message = from_text(words, name)
        return Incoming(_slug(name or message.subject), where, message, patch)
    subject = re.sub(r"^(\s*\[[^\]]*\])*\s*", "", " ".join(str(mail["Subject"] or name).split()))
    message = _with_author(from_mail(subject, words), mail)
    named = str(mail[ID_HEADER] or "") or name
    return Incoming(_slug(named or subject), where, message, patch)


def _opened(data: bytes) -> tuple[Mail | None, bytes]:
    """The headers of a mail and its text, decoded; of what is no mail, all of it."""
    head, blank, body = data.partition(b"\n\n")
    if not (_IS_MAIL.match(data) and re.search(rb"^Subject:", head, re.MULTILINE) and blank):
        return None, data
    if re.search(rb"^Description:", head, re.MULTILINE):  # DEP-3 has a Subject, too
        return None, data
    mail = BytesParser(policy=DEFAULT).parsebytes(
        re.sub(rb"^From .*\n", b"", head) + b"\n\n", headersonly=True
    )
    encoding = str(mail["Content-Transfer-Encoding"] or "").strip().lower()
    if mail.get_content_maintype() == "multipart":
        whole = BytesParser(policy=DEFAULT).parsebytes(data)
        parts = [part for part in whole.walk() if part.get_content_maintype() == "text"]
        return mail, b"\n".join(part.get_payload(decode=True) or b"" for part in parts)  # type: ignore[misc]
    if encoding == "quoted-printable":
        return mail, quopri.decodestring(body)
    return mail, base64.b64decode(body) if encoding == "base64" else body


def _with_author(message: Message, mail: Mail) -> Message:
    """Keep who wrote a patch and when, unless it says so itself."""
    fields = dict(message.fields)
    author = str(mail["From"] or "")
    if author and author != NOBODY:
        fields.setdefault("Author", author)
    with suppress(TypeError, ValueError):  # no date, or none that anybody can read
        fields.setdefault("Last-Update", parsedate_to_datetime(str(mail["Date"])).date().isoformat())
    return replace(message, fields=fields)


def _slug(name: str) -> str:
    """What a patch is called in an id: small letters, digits and dashes."""
    plain = re.sub(r"[^a-z0-9]+", "-", re.sub(r"^\d+-", "", name.lower())).strip("-")
    return plain[:60].strip("-") or "patch"
