"""Take out of what is given away whatever names a person, a machine or opens a door."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from vimectl.util.host import Host

SECRET, USER, HOST = "<secret>", "<user>", "<host>"

# Variables, keys and options whose value opens something.
_SECRET_NAME = (
    r"[\w.-]*(?:token|secret|passw|passwd|credential|api[_-]?key|access[_-]?key|private[_-]?key|auth)[\w.-]*"
)
_NAME = re.compile(_SECRET_NAME, re.IGNORECASE)
# Settings whose names look like it and that are no secrets.
_HARMLESS = re.compile(r"TOKENIZERS_PARALLELISM|RAY_AUTH_MODE|\w*MAX_\w*TOKENS|tokens_per_\w+", re.IGNORECASE)
_PATTERNS = [
    # user:password@ of an address, whatever the scheme
    (re.compile(r"(?<=://)[^/\s@\"']+@"), f"{SECRET}@"),
    (
        re.compile(r"-----BEGIN [^-]*PRIVATE KEY-----.*?(?:-----END [^-]*PRIVATE KEY-----|\Z)", re.DOTALL),
        SECRET,
    ),
    # What tokens of code and model hubs, clouds and registries look like, and JSON web tokens.
    (
        re.compile(r"\b(?:hf|gh[pousr]|github_pat|glpat|npm|pypi|xox[a-z]|sk|pk|ms)[_-][A-Za-z0-9_-]{16,}"),
        SECRET,
    ),
    (re.compile(r"\b(?:AKIA|ASIA|LTAI)[A-Z0-9a-z]{12,}"), SECRET),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?"), SECRET),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/._~-]{8,}=*"), rf"\1 {SECRET}"),
    (re.compile(rf"(?i)({_SECRET_NAME}\s*[=:]\s*)(?!\s*<)[^\s,;&\"']+"), rf"\1{SECRET}"),
    (re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"), USER),
    # The folder of a user, also of one who is not in this machine's /etc/passwd.
    (re.compile(r"(?<=/home/)[^/\s:;,\"']+|(?<=/Users/)[^/\s:;,\"']+"), USER),
]
# Accounts of the system, below which no person is; nobody is the last of them.
_FIRST_PERSON, _NOBODY = 1000, 65534
# A value that is shorter turns up everywhere by chance.
_SHORTEST_SECRET = 6


def is_secret(name: str) -> bool:
    """Whether a variable or key of this name opens something."""
    return _NAME.fullmatch(name) is not None and _HARMLESS.fullmatch(name) is None


class Redactor:
    """Replaces the secrets and the names that a machine has, wherever they stand."""

    def __init__(self, host: Host) -> None:
        values = {value for name, value in host.environment.items() if is_secret(name)}
        values = {value for value in values if len(value) >= _SHORTEST_SECRET}
        self._values = sorted(values, key=len, reverse=True)
        self._words = [(name, USER) for name in _users(host)] + [(name, HOST) for name in _names(host)]
        # The longest first: a host is often called after a user.
        self._words.sort(key=lambda pair: len(pair[0]), reverse=True)

    def text(self, text: str) -> str:
        """A text without them."""
        for value in self._values:
            text = text.replace(value, SECRET)
        for pattern, instead in _PATTERNS:
            text = pattern.sub(instead, text)
        for word, instead in self._words:
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", instead, text)
        return text

    def value(self, value: Any, key: str = "") -> Any:
        """A value of a JSON document without them; what a secret key has is gone as a whole."""
        if is_secret(key) and value and not isinstance(value, (bool, int, float)):
            return SECRET
        if isinstance(value, Mapping):
            return {self.text(str(name)): self.value(its, str(name)) for name, its in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item, key) for item in value]
        if value is None or isinstance(value, (bool, int, float)):
            return value
        return self.text(str(value))


def _users(host: Host) -> set[str]:
    """The people of a machine: who is logged in, who has an account, whose folder it is."""
    names = {host.environment.get(name, "") for name in ("USER", "LOGNAME", "SUDO_USER", "USERNAME")}
    names.add(host.environment.get("HOME", "").rstrip("/").rpartition("/")[2])
    for line in (host.read("/etc/passwd") or "").splitlines():
        fields = line.split(":")
        if len(fields) >= 6 and fields[2].isdigit() and _FIRST_PERSON <= int(fields[2]) < _NOBODY:
            names |= {fields[0], *fields[4].split(",")[:1], fields[5].rstrip("/").rpartition("/")[2]}
    return {name for name in names if name and name not in ("root", "home", "nobody")}


def _names(host: Host) -> set[str]:
    """What the machine is called, with its domain and without."""
    names = {host.environment.get("HOSTNAME", ""), (host.read("/etc/hostname") or "").strip()}
    answer = host.run(["uname", "-n"], 5)
    names.add(answer.stdout.strip() if answer.code == 0 else "")
    names |= {name.partition(".")[0] for name in names}
    return {name for name in names if name and name != "localhost"}
