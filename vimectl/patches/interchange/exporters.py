"""Write a series as a quilt series, or as a mailbox for `git am`."""

from __future__ import annotations

from datetime import datetime, timezone
from email.header import Header
from email.utils import format_datetime
from pathlib import Path
from typing import Literal

from vime_runtime.spec.errors import MissingRequirement, UsageError

from vimectl.patches.interchange.description import PatchDescription, as_mail, from_text
from vimectl.patches.interchange.importers import ID_HEADER, NO_AUTHOR
from vimectl.patches.patchfile.reader import load
from vimectl.patches.patchfile.rules import parse_valid
from vimectl.patches.series import Series

# The line that git writes between emails; git am reads the date from the Date header.
_FROM = b"From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001\n"


def export_series(series: Series, form: Literal["quilt", "mbox"], out: Path) -> list[Path]:
    """Write a series into a new folder (quilt) or a new file (mbox), and return the files.

    Raises UsageError when ``out`` exists or a patch has an error, MissingRequirement when it cannot be
    written.
    """
    if out.exists() and not (form == "quilt" and out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out} exists already", "name another --out, or remove it")
    ids = [patch.id for patch in series.patch]
    texts = [load(series.patch_path(patch_id)) for patch_id in ids]
    if form == "quilt":
        contents = {out / f"{patch_id}.patch": text for patch_id, text in zip(ids, texts, strict=True)}
        contents[out / "series"] = "".join(f"{patch_id}.patch\n" for patch_id in ids).encode()
    else:
        numbered = enumerate(zip(ids, texts, strict=True), 1)
        mails = (_mail(patch_id, text, number, len(ids)) for number, (patch_id, text) in numbered)
        contents = {out: b"".join(mails)}
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    except OSError as e:
        raise MissingRequirement(
            f"{e.filename or out} cannot be written: {e.strerror}", "name another --out"
        ) from e
    return list(contents)


def _mail(patch_id: str, text: bytes, number: int, count: int) -> bytes:
    patch = parse_valid(text, f"{patch_id}.patch")
    header = patch.header.decode("utf-8").removesuffix("---\n")
    description = from_text(header, patch_id)
    prefix = f"[PATCH {number}/{count}]" if count > 1 else "[PATCH]"
    headers = {
        "From": description.fields.get("Author", NO_AUTHOR),
        "Date": _date(description),
        "Subject": f"{prefix} {description.subject}",
        ID_HEADER: patch_id,
        "MIME-Version": "1.0",
        "Content-Type": "text/plain; charset=UTF-8",
        "Content-Transfer-Encoding": "8bit",
    }
    head = "".join(f"{name}: {_encoded(value)}\n" for name, value in headers.items())
    diff = text[len(patch.header) :]
    body = as_mail(description).encode()
    return _FROM + head.encode() + b"\n" + body + b"---\n\n" + diff + b"-- \nvimectl\n\n"


def _date(description: PatchDescription) -> str:
    try:
        day = datetime.fromisoformat(description.fields.get("Last-Update", ""))
    except ValueError:
        day = datetime.now(timezone.utc)
    return format_datetime(day.replace(tzinfo=timezone.utc, microsecond=0))


def _encoded(value: str) -> str:
    return value if value.isascii() else Header(value, "utf-8").encode()
