"""Write a series as a quilt series, or as a mailbox that `git am` takes."""

from __future__ import annotations

from datetime import datetime, timezone
from email.header import Header
from email.utils import format_datetime
from pathlib import Path
from typing import Literal, get_args

from vime_runtime.spec.errors import MissingRequirement, UsageError

from vimectl.patches.interchange.importers import ID_HEADER, NOBODY
from vimectl.patches.interchange.message import Message, as_mail, from_text
from vimectl.patches.patchfile import load, strict
from vimectl.patches.series import Series

Format = Literal["quilt", "mbox"]
FORMATS: tuple[Format, ...] = get_args(Format)
# What git writes where mail programs have a date; git am looks at the Date line.
_FROM = b"From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001\n"


def export(series: Series, form: Format, out: Path) -> list[Path]:
    """Write a series into a new folder (quilt) or a new file (mbox); returns the files written.

    Raises UsageError when ``out`` is there already or a patch has an error, MissingRequirement when it
    cannot be written.
    """
    if out.exists() and not (form == "quilt" and out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out} exists already", "name another --out, or remove it")
    ids = [patch.id for patch in series.patch]
    texts = [load(series.directory / f"{patch_id}.patch") for patch_id in ids]
    if form == "quilt":
        contents = {out / f"{patch_id}.patch": text for patch_id, text in zip(ids, texts, strict=True)}
        contents[out / "series"] = "".join(f"{patch_id}.patch\n" for patch_id in ids).encode()
    else:
        mails = (_mail(patch_id, text, number, len(ids)) for number, (patch_id, text) in
                 enumerate(zip(ids, texts, strict=True), 1))  # fmt: skip
        contents = {out: b"".join(mails)}
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    except OSError as e:
        raise MissingRequirement(f"{e.filename or out} cannot be written: {e.strerror}") from e
    return list(contents)


def _mail(patch_id: str, text: bytes, number: int, count: int) -> bytes:
    patch = strict.checked(text, f"{patch_id}.patch")
    header = patch.header.decode("utf-8").removesuffix("---\n")
    message = from_text(header, patch_id)
    headers = {
        "From": message.fields.get("Author", NOBODY),
        "Date": _date(message),
        "Subject": f"[PATCH {number}/{count}] {message.subject}"
        if count > 1
        else f"[PATCH] {message.subject}",
        ID_HEADER: patch_id,
        "MIME-Version": "1.0",
        "Content-Type": "text/plain; charset=UTF-8",
        "Content-Transfer-Encoding": "8bit",
    }
    head = "".join(f"{name}: {_encoded(value)}\n" for name, value in headers.items())
    diff = text[len(patch.header) :]
    return _FROM + head.encode() + b"\n" + as_mail(message).encode() + b"---\n\n" + diff + b"-- \nvimectl\n\n"


def _date(message: Message) -> str:
    try:
        day = datetime.fromisoformat(message.fields.get("Last-Update", ""))
    except ValueError:
        day = datetime.now(timezone.utc)
    return format_datetime(day.replace(tzinfo=timezone.utc, microsecond=0))


def _encoded(value: str) -> str:
    return value if value.isascii() else Header(value, "utf-8").encode()
