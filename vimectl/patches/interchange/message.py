"""What a patch says of itself, as a DEP-3 header and as the text of a mail.

In both, a first line says what the patch does and further ones why; fields (Origin, Forwarded, ...) follow.
In a mail the fields are its last paragraph, where git keeps trailers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_FIELD = re.compile(r"([A-Za-z][A-Za-z-]*):[ \t]?(.*)")
# The fields of DEP-3, and any of somebody's own.
_KNOWN = re.compile(
    r"(Origin|Author|Forwarded|Bug(-\w+)?|Reviewed-by|Acked-by|Last-Update|Applied-Upstream|X-.+)$"
)
# Lines at which a program that reads mail takes the message for ended.
_ENDS_MESSAGE = re.compile(r"---|diff -|Index: |From ")


@dataclass(frozen=True)
class Message:
    """``subject`` is one line, ``body`` the lines after it, ``fields`` by name, each with its lines."""

    subject: str
    body: str = ""
    fields: dict[str, str] = field(default_factory=dict)


def from_dep3(header: str) -> Message | None:
    """Read a DEP-3 header; None when the text is none."""
    fields: dict[str, list[str]] = {}
    name = ""
    for line in header.splitlines():
        found = _FIELD.match(line)
        if found:
            name = found[1]
            fields.setdefault(name, []).append(found[2])
        elif line.startswith(" ") and name:
            fields[name].append(line)
        elif line.strip():
            return None
    for name in ("Description", "Subject"):
        if name in fields:
            subject, *rest = fields.pop(name)
            body = "\n".join("" if line == " ." else line[1:] for line in rest)
            return Message(subject, body, {name: "\n".join(lines) for name, lines in fields.items()})
    return None


def as_dep3(message: Message) -> str:
    """Write a DEP-3 header, down to the last field."""
    lines = [f"Description: {message.subject}"]
    lines += (f" {line}" if line.strip() else " ." for line in message.body.splitlines())
    lines += (f"{name}: {value}" for name, value in message.fields.items())
    return "\n".join(lines) + "\n"


def from_text(text: str, default: str) -> Message:
    """Read what stands before a diff: a DEP-3 header, or words whose first line says what it does."""
    text = re.split(r"^---$", text, maxsplit=1, flags=re.MULTILINE)[0]
    found = from_dep3(text)
    if found:
        return found
    lines = [line.rstrip() for line in text.splitlines()]
    kept = [line for line in lines if not re.match(r"Index: |=+$|diff |---|#!", line)]
    subject, _, rest = "\n".join(kept).strip().partition("\n")
    return from_mail(subject or default, rest)


def from_mail(subject: str, text: str) -> Message:
    """Read the text of a mail: its last paragraph is fields when all of it is."""
    body = re.split(r"^---$", text, maxsplit=1, flags=re.MULTILINE)[0].strip("\n")
    body = re.sub(rf"^ (?= *(?:{_ENDS_MESSAGE.pattern}))", "", body, flags=re.MULTILINE)
    above, _, last = body.rpartition("\n\n")
    fields: dict[str, str] = {}
    name = ""
    for line in last.splitlines():
        found = _FIELD.match(line)
        if found and _KNOWN.match(found[1]):
            name = found[1]
            fields[name] = found[2]
        elif line.startswith(" ") and name:
            fields[name] += f"\n{line}"
        else:
            return Message(subject.strip(), body, {})
    return Message(subject.strip(), above.strip("\n"), fields)


def as_mail(message: Message) -> str:
    """Write the text of a mail, without its subject."""
    fields = "\n".join(f"{name}: {value}" for name, value in message.fields.items())
    text = "\n\n".join(part for part in (message.body, fields) if part)
    return re.sub(rf"^(?= *(?:{_ENDS_MESSAGE.pattern}))", " ", text, flags=re.MULTILINE) + "\n"
