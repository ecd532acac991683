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
# The fields of DEP-3 in an email, and user-defined ones.
_KNOWN = r"Origin|Author|Forwarded|Bug(?:-\w+)?|Reviewed-by|Acked-by|Last-Update|Applied-Upstream|X-[^:\n]+"
# Lines of a text that are quoted. GNU patch applies an indented diff as well, and a line of the second kind
# ends the message of an email.
_DIFF = r"(?:> )*[ \t]*(?:@@ -\d|diff --git |\*{15})"
_MESSAGE_END = rf"{_DIFF}|(?:> )*(?:---|diff -|Index: |From .*\d\d:\d\d)"


@dataclass(frozen=True)
class PatchDescription:
    """``subject`` is one line, ``body`` the lines after it; ``fields`` are by name, each with its lines."""

    subject: str
    body: str = ""
    fields: dict[str, str] = field(default_factory=dict)


def from_text(text: str, default: str) -> PatchDescription:
    """Parse the text before a diff: a DEP-3 header, or text whose first line is the summary."""
    lines = [line.rstrip() for line in _above_dashes(text).splitlines()]
    kept = [line for line in lines if not re.match(r"Index: |={60,}$|diff -|#!", line)]
    text = "\n".join(kept).strip("\n")
    if found := _from_dep3(text):
        return found
    subject, _, rest = text.strip().partition("\n")
    return _from_message(_without_prefix(subject) or default, rest)


def from_mail(mail: EmailMessage, text: str, default: str) -> PatchDescription:
    """Parse an email from its head and the text before the diff."""
    subject = _without_prefix(_head_field(mail, "Subject")) or default
    first, _, rest = text.lstrip("\n").partition("\n\n")
    stated = _fields(first, "From|Date|Subject") or {}
    description = _from_message(stated.get("Subject", subject), _above_dashes(rest if stated else text))
    author, date = (stated.get(name) or _head_field(mail, name) for name in ("From", "Date"))
    name, address = parseaddr(author)
    added = {
        "Author": f"{name} <{address}>" if name and "@" in address else author,
        "Date": "" if "Last-Update" in description.fields else date,
        "Message-ID": _head_field(mail, "Message-ID"),
    }
    fields = {key: value for key, value in added.items() if value not in ("", NO_AUTHOR)}
    return replace(description, fields=description.fields | fields | description.fields)


def as_dep3(description: PatchDescription) -> str:
    """Return the text of a DEP-3 header."""
    lines = [f"Description: {description.subject}"]
    body = _quoted(description.body, _DIFF).splitlines()
    lines += (f" {line}" if line.strip() else " ." for line in body)
    lines += (f"{name}: {value}" for name, value in description.fields.items())
    return "\n".join(lines) + "\n"


def as_mail(description: PatchDescription) -> str:
    """Return the text of an email, without its head."""
    fields = "\n".join(f"{name}: {value}" for name, value in description.fields.items())
    text = "\n\n".join(part for part in (description.body, fields) if part)
    return _quoted(text, _MESSAGE_END) + "\n"


def _from_dep3(header: str) -> PatchDescription | None:
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
            body = _unquoted("\n".join(["" if line == " ." else line[1:] for line in lines]), _DIFF)
            body = "\n\n".join(part for part in (body, rest.strip("\n")) if part)
            return PatchDescription(_without_prefix(subject), body, fields)
    return None


def _from_message(subject: str, text: str) -> PatchDescription:
    """Parse the text of an email. Its last paragraph has fields if all of its lines are fields."""
    body = _unquoted(text.strip("\n"), _MESSAGE_END)
    above, _, last = body.rpartition("\n\n")
    fields = _fields(last, _KNOWN)
    return PatchDescription(subject, body if fields is None else above.strip("\n"), fields or {})


def _fields(text: str, names: str = "[A-Za-z][A-Za-z-]*") -> dict[str, str] | None:
    """Parse fields with their continuation lines; None when the text has another line."""
    text = re.sub(r"^\s*(?:\n|\Z)", "", text).rstrip("\n")
    found = list(re.finditer(rf"^({names}):[ \t]?(.*(?:\n[ \t].*)*)(?:\n|\Z)", text, re.MULTILINE))
    fields: dict[str, str] = {}
    for name, value in (match.group(1, 2) for match in found):
        fields[name] = f"{fields[name]}\n {value}" if name in fields else value
    return fields if sum(len(match[0]) for match in found) == len(text) else None


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
    return re.sub(r"^(?:\s*(?:re:|\[[^\]]*PATCH[^\]]*\]))*", "", subject, flags=re.IGNORECASE).strip()


def _above_dashes(text: str) -> str:
    """Return the text above a line of three dashes, below which git and DEP-3 allow notes."""
    return re.split(r"^---$", text, maxsplit=1, flags=re.MULTILINE)[0]


def _quoted(text: str, pattern: str) -> str:
    return re.sub(rf"^(?={pattern})", "> ", text, flags=re.MULTILINE)


def _unquoted(text: str, pattern: str) -> str:
    return re.sub(rf"^> (?={pattern})", "", text, flags=re.MULTILINE)
