"""Make any text fit to be looked at: what a model writes may hold anything."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

# What is shown of one text. The rest is in the run's own files.
LONGEST = 4000

SECRET = re.compile(
    r"(?:^|[_.])(?:TOKEN|SECRET|PASS|PASSWORD|PASSWD|CREDENTIALS?|AUTH|(?:API|ACCESS|PRIVATE)_?KEY)(?:$|_)",
    re.IGNORECASE,
)
# Controls, directions and other format characters, and halves of surrogate pairs, which UTF-8 cannot hold.
UNSEEN = ("Cc", "Cf", "Cs")
JOINER = "\u200d"  # emoji are put together with it
HIDDEN = "(not shown: the name says that it is a secret)"


def visible(value: Any, longest: int = LONGEST) -> str:
    """Text in which characters that a browser would obey or drop are shown as symbols or codes."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    left = len(text) - longest
    shown = "".join(map(_visible, text[:longest]))
    return f"{shown}… {left:,} more characters" if left > 0 else shown


def variable(name: str, value: Any) -> str:
    """The value of an environment variable; what a secret is called tells it."""
    return HIDDEN if SECRET.search(name) and value not in (None, "", {}) else visible(value)


def _visible(character: str) -> str:
    if character in "\n\t" or character == JOINER:
        return character
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return f"⟨U+{code:04X}⟩" if unicodedata.category(character) in UNSEEN else character
