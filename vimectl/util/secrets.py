"""Recognize variables, keys and options whose value is a secret, by their name."""

from __future__ import annotations

import re

# A pattern that matches the whole name; case is ignored.
SECRET_NAME = (
    r"[\w.-]*(?:token|secret|passw|credential|api[_-]?key|access[_-]?key|private[_-]?key|auth"
    r"|(?<![^\W_])pass(?![^\W_]))[\w.-]*"
)
_NAME = re.compile(SECRET_NAME, re.IGNORECASE)
# user:password@ in a URL of any scheme
URL_CREDENTIALS = re.compile(r"(?<=://)[^/\s@\"']+@")
# What replaces a secret.
SECRET = "<secret>"
# Names that match and hold no secret.
_HARMLESS = re.compile(
    r"(?:.*\.)?(?:TOKENIZERS_PARALLELISM|RAY_AUTH_MODE|\w*MAX_\w*TOKENS|tokens_per_\w+)", re.IGNORECASE
)


def is_secret(name: str) -> bool:
    """Return True if a variable or key of this name holds a secret."""
    return _NAME.fullmatch(name) is not None and _HARMLESS.fullmatch(name) is None
