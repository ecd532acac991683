"""Remove secrets and the names of people and machines from a support bundle."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from vimectl.util.host import Host
from vimectl.util.secrets import SECRET_NAME, is_secret

SECRET, USER, HOST = "<secret>", "<user>", "<host>"

_PATTERNS = [
    # user:password@ in a URL of any scheme
    (re.compile(r"(?<=://)[^/\s@\"']+@"), f"{SECRET}@"),
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
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/._~-]{8,}=*"), rf"\1 {SECRET}"),
    (re.compile(rf"(?i)({SECRET_NAME}\s*[=:]\s*)(?!\s*<)[^\s,;&\"']+"), rf"\1{SECRET}"),
    (re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"), USER),
    # The home directory of any user, also of one who is not in this machine's /etc/passwd.
    (re.compile(r"(?<=/home/)[^/\s:;,\"']+|(?<=/Users/)[^/\s:;,\"']+"), USER),
]
# The user ids of people: below are system accounts, and 65534 is the kernel's overflow id.
_FIRST_PERSON, _OVERFLOW = 1000, 65534
# A shorter value would match unrelated text.
_SHORTEST_SECRET = 6


class Redactor:
    """Replaces the secrets and names of a machine wherever they occur."""

    def __init__(self, host: Host) -> None:
        values = {value for name, value in host.environment.items() if is_secret(name)}
        values = {value for value in values if len(value) >= _SHORTEST_SECRET}
        self._values = sorted(values, key=len, reverse=True)
        self._words = [(name, USER) for name in _user_names(host)]
        self._words += [(name, HOST) for name in _host_names(host)]
        # The longest first: a host is often named after a user.
        self._words.sort(key=lambda pair: len(pair[0]), reverse=True)

    def text(self, text: str) -> str:
        """Return a text without secrets and names."""
        for value in self._values:
            text = text.replace(value, SECRET)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        for word, replacement in self._words:
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", replacement, text)
        return text

    def value(self, value: Any, key: str = "") -> Any:
        """Return a value of a JSON document without them. The value of a secret key is replaced whole."""
        if value is None or isinstance(value, (bool, int, float)):
            return value
        if is_secret(key) and value:
            return SECRET
        if isinstance(value, Mapping):
            return {self.text(str(name)): self.value(item, str(name)) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item, key) for item in value]
        return self.text(str(value))


def _user_names(host: Host) -> set[str]:
    """Return the people of a machine: the user, the owner of the home directory, those with an account."""
    names = {host.environment.get(name, "") for name in ("USER", "LOGNAME", "SUDO_USER", "USERNAME")}
    names.add(host.environment.get("HOME", "").rstrip("/").rpartition("/")[2])
    for line in (host.read("/etc/passwd") or "").splitlines():
        fields = line.split(":")
        if len(fields) >= 6 and fields[2].isdigit() and _FIRST_PERSON <= int(fields[2]) < _OVERFLOW:
            names |= {fields[0], *fields[4].split(",")[:1], fields[5].rstrip("/").rpartition("/")[2]}
    return {name for name in names if name and name not in ("root", "home")}


def _host_names(host: Host) -> set[str]:
    """Return the names of the machine, with and without its domain."""
    names = {host.environment.get("HOSTNAME", ""), (host.read("/etc/hostname") or "").strip()}
    answer = host.run(["uname", "-n"], 5)
    names.add(answer.stdout.strip() if answer.code == 0 else "")
    names |= {name.partition(".")[0] for name in names}
    return {name for name in names if name and name != "localhost"}
