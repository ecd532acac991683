"""Read from pip's configuration where it looks for packages, and how it reaches them."""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import platformdirs
from vime_runtime.spec.errors import CheckFailed, MissingRequirement

from vimectl.util.host import Host

_DEFAULT_TIMEOUT = 15.0  # pip's own, seconds
# A later section takes precedence: pip reads global options, those of a command, then PIP_* variables.
_SECTIONS = ("global", "download", ":env:")
_TRUE = ("y", "yes", "t", "true", "on", "1")


@dataclass(frozen=True)
class PipConfig:
    """The part of pip's configuration that is about finding and fetching a file.

    ``indexes`` and ``find_links`` are as configured, with credentials in the URLs. ``cache`` is the folder
    of pip's own cache; None when it is disabled. ``keyring``: missing passwords are read from the `keyring`
    command. ``timeout`` is in seconds.
    """

    indexes: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    proxy: str | None = None
    cert: str | None = None
    client_cert: str | None = None
    trusted_hosts: tuple[str, ...] = ()
    keyring: bool = False
    timeout: float = _DEFAULT_TIMEOUT
    cache: Path | None = None


def read(host: Host | None = None) -> PipConfig:
    """Read the configuration of this interpreter's pip: system, user and environment files, and PIP_*.

    Raises:
        MissingRequirement: this interpreter has no pip.
        CheckFailed: pip fails to read its configuration.
    """
    host = host or Host()
    options = _options(_pip(host, "config", "list"))
    if "index-url" not in options:
        options["index-url"] = _default_index(_pip(host, "download", "--help"))
    return _from_options(options)


def _pip(host: Host, *arguments: str) -> str:
    # In a subprocess, without even a find_spec here: setuptools changes the process that looks for pip.
    done = host.run([sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments], 60.0)
    if "No module named pip" in done.stderr:
        raise MissingRequirement(
            f"{sys.executable} has no pip; its configuration names the sources of releases",
            "install pip there, or name a folder, wheel or source archive instead",
        )
    if done.code:
        raise CheckFailed(
            f"pip {' '.join(arguments)} failed: {done.stderr.strip()}", "correct pip's configuration"
        )
    return done.stdout


def _default_index(usage: str) -> str:
    """Return the index that pip uses when none is configured, from the text of its help."""
    stated = re.search(r"--index-url.*?\(default\s+(\S+)\)", usage, re.DOTALL)
    if stated is None:
        raise CheckFailed(
            "the help of pip states no default index", "configure one: pip config set global.index-url URL"
        )
    return stated[1]


def _options(text: str) -> dict[str, str]:
    """Return the options for a download by name, from lines like ``global.index-url='https://...'``."""
    found: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        section, _, name = key.rpartition(".")
        # pip ignores an empty value.
        if equals and section in found and (option := str(ast.literal_eval(value))):
            found[section][name] = option
    return {name: value for section in _SECTIONS for name, value in found[section].items()}


def _from_options(options: dict[str, str]) -> PipConfig:
    indexes = [options["index-url"], *options.get("extra-index-url", "").split()]
    cache = Path(options.get("cache-dir") or platformdirs.user_cache_dir("pip"))
    return PipConfig(
        indexes=() if _is_true(options, "no-index") else tuple(indexes),
        find_links=tuple(options.get("find-links", "").split()),
        proxy=options.get("proxy"),
        cert=options.get("cert"),
        client_cert=options.get("client-cert"),
        trusted_hosts=tuple(options.get("trusted-host", "").split()),
        # The default, "auto", uses a keyring only if pip could also prompt for a password.
        keyring=options.get("keyring-provider") in ("import", "subprocess"),
        timeout=float(options.get("timeout") or options.get("default-timeout") or _DEFAULT_TIMEOUT),
        # pip takes any value for true: "no-cache-dir = false" disables the cache as well.
        cache=None if "no-cache-dir" in options else cache,
    )


def _is_true(options: dict[str, str], name: str) -> bool:
    return options.get(name, "").lower() in _TRUE
