"""Markdown of the generated pages."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

_CODE = re.compile(r"(`[^`]*`)")


def prose(text: str) -> str:
    """Return a text without markup but code in backquotes, as Markdown.

    >>> prose("`a*b` <answer> *")
    '`a*b` &lt;answer&gt; \\\\*'
    """
    parts = _CODE.split(" ".join(text.replace("``", "`").split()))
    return "".join(part if part.startswith("`") else _escape(part) for part in parts)


def code(text: str) -> str:
    """Return a text as code."""
    return f"`{text}`"


def entry(anchor: str, paragraphs: Iterable[str], term: str = "") -> str:
    """Return one entry of a definition list: code that is a link to itself, and what it means.

    Args:
        term: the code; by default the anchor.
    """
    first, *others = [text for text in paragraphs if text]
    body = [f":   {first}", *(f"    {text}" for text in others)]
    return f"[`{term or anchor}`](#{anchor}){{ #{anchor} .entry }}\n\n" + "\n\n".join(body) + "\n"


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table; cells are Markdown."""
    lines = [[*columns], *([*row] for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _escape(text: str) -> str:
    return re.sub(r"([*_\[\]\\])", r"\\\1", html.escape(text, quote=False))
