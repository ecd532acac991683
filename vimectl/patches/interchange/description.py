"""Parse and write the description of a patch, as a DEP-3 header and as the text of an email.

In both, the first line summarizes the patch and the next ones explain it; fields (Origin, Forwarded, ...)
follow. In an email the fields are the last paragraph, like git's trailers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z-]*")
_FIELD = re.compile(rf"({_FIELD_NAME.pattern}):[ \t]?(.*)")
# The fields of DEP-3, and user-defined ones.
_KNOWN = re.compile(
    r"(Origin|Author|Forwarded|Bug(-\w+)?|Reviewed-by|Acked-by|Last-Update|Applied-Upstream|X-.+)$"
)
# Lines that end the message for programs that read email.
_ENDS_MESSAGE = re.compile(r"---|diff -|Index: |From ")


@dataclass(frozen=True)
class PatchDescription:
    """``subject`` is one line, ``body`` the lines after it; ``fields`` are by name, each with its lines."""

    subject: str
    body: str = ""
    fields: dict[str, str] = field(default_factory=dict)


def from_dep3(header: str) -> PatchDescription | None:
    """Parse a DEP-3 header; None when the text is not one."""
    fields = _fields(header) or {}
    for name in ("Description", "Subject"):
        if name in fields:
            subject, *rest = fields.pop(name).split("\n")
            body = "\n".join("" if line == " ." else line[1:] for line in rest)
            return PatchDescription(subject, body, fields)
    return None


def _fields(text: str, names: re.Pattern[str] = _FIELD_NAME) -> dict[str, str] | None:
    """Parse fields with their continuation lines; None when the text has another line."""
    fields: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        found = _FIELD.match(line)
        if found and names.match(found[1]):
            name = found[1]
            fields[name] = f"{fields[name]}\n {found[2]}" if name in fields else found[2]
        elif line.startswith(" ") and name:
            fields[name] += f"\n{line}"
        elif line.strip():
            return None
    return fields


def as_dep3(description: PatchDescription) -> str:
    """Return the text of a DEP-3 header."""
    lines = [f"Description: {description.subject}"]
    lines += (f" {line}" if line.strip() else " ." for line in description.body.splitlines())
    lines += (f"{name}: {value}" for name, value in description.fields.items())
    return "\n".join(lines) + "\n"


def from_text(text: str, default: str) -> PatchDescription:
    """Parse the text before a diff: a DEP-3 header, or text whose first line is the summary."""
    text = re.split(r"^---$", text, maxsplit=1, flags=re.MULTILINE)[0]
    found = from_dep3(text)
    if found:
        return found
    lines = [line.rstrip() for line in text.splitlines()]
    kept = [line for line in lines if not re.match(r"Index: |=+$|diff |---|#!", line)]
    subject, _, rest = "\n".join(kept).strip().partition("\n")
    return from_mail(subject or default, rest)


def from_mail(subject: str, text: str) -> PatchDescription:
    """Parse the text of an email. Its last paragraph has fields if all of its lines are fields."""
    body = re.split(r"^---$", text, maxsplit=1, flags=re.MULTILINE)[0].strip("\n")
    body = re.sub(rf"^ (?= *(?:{_ENDS_MESSAGE.pattern}))", "", body, flags=re.MULTILINE)
    above, _, last = body.rpartition("\n\n")
    fields = _fields(last, _KNOWN)
    if fields is None:
        return PatchDescription(subject.strip(), body, {})
    return PatchDescription(subject.strip(), above.strip("\n"), fields)


def as_mail(description: PatchDescription) -> str:
    """Return the text of an email, without its subject."""
    fields = "\n".join(f"{name}: {value}" for name, value in description.fields.items())
    text = "\n\n".join(part for part in (description.body, fields) if part)
    return re.sub(rf"^(?= *(?:{_ENDS_MESSAGE.pattern}))", " ", text, flags=re.MULTILINE) + "\n"
