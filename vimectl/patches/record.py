"""Keep a wheel's RECORD true: the lines of the files that changed, were created or deleted, and no others.

Format: PyPA's "Recording installed projects" (CSV: path, ``sha256=<urlsafe base64>``, size). The lines of
bytecode state neither hash nor size and stay: installers remove by them what Python compiles there later.
"""

from __future__ import annotations

import base64
import csv
import hashlib
from collections.abc import Mapping
from io import BytesIO, StringIO


def update(record: bytes, contents: Mapping[str, bytes | None]) -> bytes:
    """Return RECORD with the lines of ``contents`` (by path; None: no such file) brought up to date.

    A line that states no hash stays: it is true of any content. What has no line gets one at the end.
    """
    lines = [(_row(raw), raw) for raw in BytesIO(record).readlines()]
    kept = b"".join(_line(row, raw, contents) for row, raw in lines)
    listed = {row[0] for row, _ in lines if row}
    added = [
        _new(path, content)
        for path, content in sorted(contents.items())
        if content is not None and path not in listed
    ]
    end = b"\r\n" if record.endswith(b"\r\n") else b"\n"
    if added and kept and not kept.endswith(b"\n"):
        kept += end
    return kept + b"".join(line + end for line in added)


def lists(record: bytes, path: str) -> bool:
    """Whether RECORD has a line for ``path``."""
    return b"\n" + path.encode() + b"," in b"\n" + record


def truth(record: bytes, contents: Mapping[str, bytes]) -> int:
    """Return of how many of these files RECORD states the hash they have."""
    rows = {row[0]: row[1] for row in map(_row, BytesIO(record).readlines()) if len(row) == 3}
    return sum(
        rows.get(path) == _digest(rows[path].partition("=")[0], content).decode().partition(",")[0]
        for path, content in contents.items()
        if rows.get(path)
    )


def _row(raw: bytes) -> list[str]:
    line = raw.decode("utf-8", "surrogateescape")
    # Of thousands of lines hardly one is quoted, and a csv reader for each takes its time.
    return next(csv.reader(StringIO(line))) if '"' in line else line.rstrip("\r\n").split(",")


def _line(row: list[str], raw: bytes, contents: Mapping[str, bytes | None]) -> bytes:
    if len(row) != 3 or row[0] not in contents:
        return raw
    path, stated, size = row
    content = contents[path]
    if content is None:
        return b""
    if not stated:
        return raw
    # Replaced in the text, not written anew: quoting and line end stay the installer's.
    head, _, tail = raw.rpartition(f"{stated},{size}".encode())
    return head + _digest(stated.partition("=")[0], content) + tail


def _new(path: str, content: bytes) -> bytes:
    text = StringIO()
    csv.writer(text, lineterminator="").writerow([path])
    return text.getvalue().encode("utf-8", "surrogateescape") + b"," + _digest("sha256", content)


def _digest(algorithm: str, content: bytes) -> bytes:
    digest = base64.urlsafe_b64encode(hashlib.new(algorithm, content).digest()).rstrip(b"=").decode()
    return f"{algorithm}={digest},{len(content)}".encode()
