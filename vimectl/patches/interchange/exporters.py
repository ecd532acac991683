"""Write a series as a quilt series, or as a mailbox for `git am`."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from datetime import datetime, timezone
from email.header import Header
from email.utils import format_datetime, formataddr
from pathlib import Path
from typing import Literal

from vime_runtime.spec.errors import UsageError

from vimectl.patches.interchange.description import NO_AUTHOR, as_mail, from_text
from vimectl.patches.interchange.importers import ID_HEADER
from vimectl.patches.patchfile.reader import load
from vimectl.patches.series import ORDER, Patch, Series, file_name
from vimectl.util.new_folder import new_folder
from vimectl.util.output_file import STDOUT, write_output

_ADDRESS = re.compile(r'"?(.*?)"?\s*<([^<>@\s]+@[^<>\s]+)>')
# The line that git writes between emails; git am reads the date from the Date header.
_FROM = b"From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001\n"


def export_series(series: Series, form: Literal["quilt", "mbox"], out: Path) -> list[Path]:
    """Write a series into a new folder (quilt) or a new file (mbox), and return the files.

    Raises UsageError when ``out`` exists or the form cannot express a patch, MissingRequirement when it
    cannot be written.
    """
    if form == "mbox":
        if os.path.lexists(out) or out == STDOUT:  # which has what the command prints
            raise UsageError(f"{out} exists already", "name another --out, or remove it")
        count = len(series.patches)
        mails = (_mail(patch, number, count) for number, patch in enumerate(series.patches, 1))
        write_output(out, b"".join(mails))
        return [out]
    contents = _quilt(series)
    with new_folder(out) as write:
        for path, content in contents.items():
            write(path, content)
    return [out / path for path in contents]


def _quilt(series: Series) -> dict[str, bytes]:
    """Return the files of a series directory that quilt reads, by relative path."""
    for patch, path in ((one, path) for one in series.patches for path in one.files):
        if patch.diffs[path].binary is not None:
            raise UsageError(f"{patch.id} changes {path}, a binary file, which quilt cannot", "--format mbox")
    contents = {file_name(patch.id): patch.text for patch in series.patches}
    return contents | {ORDER: load(series.directory / ORDER)}


def _mail(patch: Patch, number: int, count: int) -> bytes:
    description = from_text(patch.header.decode("utf-8", "surrogateescape"), patch.id)
    fields = dict(description.fields)
    if author := _ADDRESS.fullmatch(fields.get("Author", NO_AUTHOR)):
        fields.pop("Author", "")
    prefix = f"[PATCH {number}/{count}]" if count > 1 else "[PATCH]"
    headers = {
        "From": formataddr((author[1], author[2])) if author else NO_AUTHOR,
        "Date": fields.pop("Date", "") or _as_date(fields.get("Last-Update", "")),
        "Subject": _encoded(f"{prefix} {description.subject}"),
        "Message-ID": fields.pop("Message-ID", ""),
        ID_HEADER: _encoded(patch.id),
        "MIME-Version": "1.0",
        "Content-Type": "text/plain; charset=UTF-8",
        "Content-Transfer-Encoding": "8bit",
    }
    head = "".join(f"{name}: {value}\n" for name, value in headers.items() if value)
    diff = patch.text[len(patch.header) :]
    body = as_mail(replace(description, fields=fields)).encode("utf-8", "surrogateescape")
    return _FROM + head.encode() + b"\n" + body + b"---\n\n" + diff + b"-- \nvimectl\n\n"


def _as_date(day: str) -> str:
    """Return a date for the head of an email, "" for no date: `git am` then takes the present time."""
    try:
        return format_datetime(datetime.fromisoformat(day).replace(tzinfo=timezone.utc, microsecond=0))
    except ValueError:
        return ""


def _encoded(value: str) -> str:
    return value if value.isascii() else Header(value, "utf-8").encode()
