"""Parse and write the description of a patch, as a DEP-3 header and as the text of an email.

In both, the first line summarizes the patch and the next ones explain it; fields (Origin, Forwarded, ...)
follow. In an email the fields are the last paragraph, like git's trailers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import parseaddr

# The author of a mail whose patch names none.
NO_AUTHOR = "vimectl <vimectl@localhost>"
_FIELD = re.compile(r"([A-Za-z][A-Za-z-]*):[ \t]?(.*)")
# The fields of DEP-3, and user-defined ones.
_KNOWN = re.compile(
    r"(Origin|Author|Forwarded|Bug(-\w+)?|Reviewed-by|Acked-by|Last-Update|Applied-Upstream|X-.+)$"
)
# What git writes above the text of a mail whose sender is not the author.
_IN_BODY = re.compile(r"(From|Date|Subject)$")
# Lines of a text that are quoted. GNU patch applies an indented diff as well, and a line of the second kind
# ends the message of an email.
_DIFF = r"(?:> )*[ \t]*(?:@@ -\d|diff --git |\*{15})"
_MESSAGE_END = rf"{_DIFF}|(?:> )*(?:---|diff -|Index: |From .*\d\d:\d\d)"
_PREFIX = re.compile(r"\s*(?:re:|\[[^\]]*PATCH[^\]]*\])\s*", re.IGNORECASE)


@dataclass(frozen=True)
class PatchDescription:
    """``subject`` is one line, ``body`` the lines after it; ``fields`` are by name, each with its lines."""

    subject: str
    body: str = ""
    fields: dict[str, str] = field(default_factory=dict)


def from_dep3(header: str) -> PatchDescription | None:
    """Parse a DEP-3 header; None when the text is not one. Text after the fields belongs to the body."""
    head, _, rest = header.partition("\n\n")
    fields = _fields(head)
    while fields and (more := _fields(rest.partition("\n\n")[0])):
        fields |= more
        rest = rest.partition("\n\n")[2]
    for name in ("Description", "Subject"):
        if fields and name in fields:
            subject, *lines = fields.pop(name).split("\n")
            if "From" in fields:
                fields = {"Author": fields.pop("From"), **fields}
            body = "\n".join(["" if line == " ." else line[1:] for line in lines])
            body = "\n\n".join(part for part in (_unquoted(body, _DIFF), rest.strip("\n")) if part)
            return PatchDescription(_without_prefix(subject), body, fields)
    return None


def _fields(text: str, names: re.Pattern[str] | None = None) -> dict[str, str] | None:
    """Parse fields with their continuation lines; None when the text has another line."""
    fields: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        found = _FIELD.match(line)
        if found and (names is None or names.match(found[1])):
            name = found[1]
            fields[name] = f"{fields[name]}\n {found[2]}" if name in fields else found[2]
        elif line.startswith((" ", "\t")) and name:
            fields[name] += f"\n{line}"
        elif line.strip():
            return None
    return fields


def as_dep3(description: PatchDescription) -> str:
    """Return the text of a DEP-3 header."""
    lines = [f"Description: {description.subject}"]
    body = _quoted(description.body, _DIFF).splitlines()
    lines += (f" {line}" if line.strip() else " ." for line in body)
    lines += (f"{name}: {value}" for name, value in description.fields.items())
    return "\n".join(lines) + "\n"


def from_text(text: str, default: str) -> PatchDescription:
    """Parse the text before a diff: a DEP-3 header, or text whose first line is the summary."""
    text = re.split(r"^---$", text, maxsplit=1, flags=re.MULTILINE)[0]
    lines = [line.rstrip() for line in text.splitlines()]
    kept = [line for line in lines if not re.match(r"Index: |={60,}$|diff -|#!", line)]
    text = "\n".join(kept).strip("\n")
    if found := from_dep3(text):
        return found
    subject, _, rest = text.strip().partition("\n")
    return _from_message(_without_prefix(subject) or default, rest)


def from_mail(mail: EmailMessage, text: str, default: str) -> PatchDescription:
    """Parse an email from its head and the text before the diff."""
    subject = _without_prefix(_head_field(mail, "Subject")) or default
    first, _, rest = text.lstrip("\n").partition("\n\n")
    stated = _fields(first, _IN_BODY) or {}
    description = _from_message(stated.get("Subject", subject), rest if stated else text)
    author, date = (stated.get(name) or _head_field(mail, name) for name in ("From", "Date"))
    name, address = parseaddr(author)
    added = {
        "Author": f"{name} <{address}>" if name and "@" in address else author,
        "Date": "" if "Last-Update" in description.fields else date,
        "Message-ID": _head_field(mail, "Message-ID"),
    }
    fields = {key: value for key, value in added.items() if value not in ("", NO_AUTHOR)}
    return replace(description, fields=description.fields | fields | description.fields)


def _head_field(mail: EmailMessage, name: str) -> str:
    """Return a field of the head, decoded. Unencoded UTF-8, which git can write, is taken as it is."""
    raw = next((value for key, value in mail.raw_items() if key.lower() == name.lower()), "")
    text = " ".join(raw.encode("utf-8", "surrogateescape").decode("utf-8", "replace").split())
    try:
        return str(make_header(decode_header(text)))
    except (LookupError, UnicodeError, HeaderParseError):
        return text


def _without_prefix(subject: str) -> str:
    """Return the subject of a mail without ``[PATCH 1/2]``. Other brackets stay."""
    while found := _PREFIX.match(subject):
        subject = subject[found.end() :]
    return subject.strip()


def _from_message(subject: str, text: str) -> PatchDescription:
    """Parse the text of an email. Its last paragraph has fields if all of its lines are fields."""
    body = re.split(r"^---$", text, maxsplit=1, flags=re.MULTILINE)[0].strip("\n")
    body = _unquoted(body, _MESSAGE_END)
    above, _, last = body.rpartition("\n\n")
    fields = _fields(last, _KNOWN)
    if fields is None:
        return PatchDescription(subject, body, {})
    return PatchDescription(subject, above.strip("\n"), fields)


def as_mail(description: PatchDescription) -> str:
    """Return the text of an email, without its head."""
    fields = "\n".join(f"{name}: {value}" for name, value in description.fields.items())
    text = "\n\n".join(part for part in (description.body, fields) if part)
    return _quoted(text, _MESSAGE_END) + "\n"


def _quoted(text: str, pattern: str) -> str:
    return re.sub(rf"^(?={pattern})", "> ", text, flags=re.MULTILINE)


def _unquoted(text: str, pattern: str) -> str:
    return re.sub(rf"^> (?={pattern})", "", text, flags=re.MULTILINE)
