"""Recognize secrets: by the name of a variable, key or option, by their form, and in texts of any kind."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vime_runtime.spec.private_values import SECRET

# A pattern that matches the whole name; case is ignored. Its length is bounded, as that of a text is not.
_SECRET_NAME = (
    r"(?<![\w.-])[\w.-]{0,80}?(?:token|secret|passw|passphrase|credential"  # nosec B105
    r"|(?:api|access|private|subscription)[_-]?key|auth|(?<![^\W_])(?:pass|pwd|jwt)(?![^\W_]))[\w.-]{0,80}"
)
_NAME = re.compile(_SECRET_NAME, re.IGNORECASE)
# Names that match and hold no secret.
_HARMLESS = re.compile(
    r"(?:.*\.)?(?:TOKENIZERS_PARALLELISM|RAY_AUTH_MODE|\w*MAX_\w*TOKENS|tokens_per_\w+|authors?)",
    re.IGNORECASE,
)
# user:password@ in a URL of any scheme; a password may have an @.
URL_CREDENTIALS = re.compile(r"(?<=://)[^/\s\"'<>]+@")
# A value in quotes, also in those of JSON in a text of JSON, or up to what ends a value.
_VALUE = (
    r"(?:\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|(?P<q>\\+[\"'])[^\n]*?(?P=q)"
    r"|(?![\[({])[^\s,;&\"'\\<>]+)"
)
_SCHEMES = "bearer|basic|token|digest|apikey"
_FORMS: list[tuple[re.Pattern[str], str]] = [
    (URL_CREDENTIALS, f"{SECRET}@"),
    # The same without a scheme; a digest of an image is none.
    (re.compile(r"(?<![\w./+-])[\w.+-]{1,80}:[^\s/:@\"',<>]{1,200}@(?!sha256:)(?=\w)"), f"{SECRET}@"),
    (
        re.compile(r"-----BEGIN [^-]*PRIVATE KEY-----.*?(?:-----END [^-]*PRIVATE KEY-----|\Z)", re.DOTALL),
        SECRET,
    ),
    # Tokens of code and model hubs, clouds and registries, and JSON web tokens.
    (
        re.compile(r"\b(?:hf|gh[pousr]|github_pat|glpat|npm|pypi|xox[a-z]|sk|pk|ms)[_-][A-Za-z0-9_-]{16,}"),
        SECRET,
    ),
    (re.compile(r"\b(?:AKIA|ASIA|LTAI)[A-Z0-9a-z]{12,}"), SECRET),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?"), SECRET),
    (
        re.compile(
            rf"(?i)(\b(?:proxy-)?authorization\\*[\"']?\s*[=:]\s*\\*[\"']?(?:(?:{_SCHEMES})\s+)?)[^\s\"',;\\]+"
        ),
        rf"\1{SECRET}",
    ),
    (
        re.compile(r"(?i)(\bcookie(?:\s*:\s*|\\*[\"']\s*:\s*\\*[\"'])(?![\s\"']))[^\"'\n\\]+"),
        rf"\1{SECRET}",
    ),
    # A line of a configuration, as of a game server: rcon_password "x". A sentence has no such name.
    (
        re.compile(
            r"(?i)((?<![\w.-])[\w.-]{1,80}_(?:password|passwd|secret)[ \t]+)"
            r"(?:\"[^\"\n]*\"|(?=\S*\d)[^\s\"',;]+)"
        ),
        rf"\1{SECRET}",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/._~-]{8,}=*"), rf"\1 {SECRET}"),
    (re.compile(r"(?i)([?&](?:key|sig|signature|x-amz-signature)=)[^&\s\"'\\]+"), rf"\1{SECRET}"),
]
# NAME=value, name: value, "name": "value", and --name value.
_ASSIGNMENT = re.compile(
    rf"(?P<name>{_SECRET_NAME})(?P<between>\\*[\"']?\s*[=:]\s*)(?P<value>{_VALUE})", re.IGNORECASE
)
_OPTION = re.compile(
    rf"(?P<name>(?=--?\w){_SECRET_NAME})(?P<between>[ \t]+)(?P<value>(?!-){_VALUE})", re.IGNORECASE
)


def is_secret(name: str) -> bool:
    """Return True if a variable, key or option of this name holds a secret."""
    bare = name.lstrip("-")
    # The working directory is not a password.
    return (
        _NAME.fullmatch(bare) is not None
        and _HARMLESS.fullmatch(bare) is None
        and bare.rpartition(".")[2] not in ("PWD", "OLDPWD")
    )


def redact(text: str) -> str:
    """Return a text in which everything that looks like a secret is replaced."""
    for pattern, replacement in _FORMS:
        text = pattern.sub(replacement, text)
    return _OPTION.sub(_hide_value, _ASSIGNMENT.sub(_hide_value, text))


def redact_document(value: Any, redact: Callable[[str], str] = redact, key: str = "") -> Any:
    """Return a JSON value with its texts redacted. The value of a secret key is replaced whole."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if is_secret(key) and value:
        return SECRET
    if isinstance(value, Mapping):
        return {redact(str(k)): redact_document(item, redact, str(k)) for k, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact_document(item, redact, key) for item in value]
    return redact(str(value))


def redact_arguments(arguments: Sequence[str]) -> list[str]:
    """Return the words of a command line without secrets: ``--api-key X``, ``--set env.X=VALUE``."""
    shown, previous = [], ""
    for word in arguments:
        is_value = previous.startswith("-") and "=" not in previous and is_secret(previous)
        hidden = re.sub(r"(?s)^((?:--set=)?env\.[^=]*=).*", rf"\1{SECRET}", word)
        shown.append(SECRET if is_value else redact(hidden))
        previous = word
    return shown


def _hide_value(match: re.Match[str]) -> str:
    name, between, value = match["name"], match["between"], match["value"]
    if not is_secret(name):
        return f"{name}{between}{_ASSIGNMENT.sub(_hide_value, value)}"
    if value.lower() in _SCHEMES.split("|"):
        return match[0]
    quote = match["q"] or (value[0] if value[0] in "\"'" else "")
    return f"{name}{between}{quote}{SECRET}{quote}"
