"""Keep a wheel's RECORD true: the hash and size it states for a file that changed, and nothing else of it.

Format: PyPA's "Recording installed projects" (CSV: path, ``sha256=<urlsafe base64>``, size).
The line is computed from the content, so reverting the content restores the line byte for byte.
"""

from __future__ import annotations

import base64
import csv
import hashlib
from io import BytesIO, StringIO


def update(record: bytes, contents: dict[str, bytes]) -> bytes:
    """Return RECORD with the lines of ``contents`` (by path) brought up to date.

    Lines that state no hash stay as they are: they are true of any content.
    """
    return b"".join(_line(raw, contents) for raw in BytesIO(record).readlines())


def _line(raw: bytes, contents: dict[str, bytes]) -> bytes:
    row = next(csv.reader(StringIO(raw.decode("utf-8"))), [])
    if len(row) != 3 or row[0] not in contents or not row[1]:
        return raw
    path, stated, size = row
    content = contents[path]
    algorithm = stated.partition("=")[0]
    digest = base64.urlsafe_b64encode(hashlib.new(algorithm, content).digest()).rstrip(b"=").decode()
    # Replaced in the text, not written anew: quoting and line end stay the installer's.
    old = f"{stated},{size}".encode()
    head, _, tail = raw.rpartition(old)
    return head + f"{algorithm}={digest},{len(content)}".encode() + tail
