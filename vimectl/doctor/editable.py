"""Editable installs of a machine: packages whose source lies in a checkout, and which commit that is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

from packaging.utils import canonicalize_name

from vimectl.stacks.installed import site_directories
from vimectl.util.host import Host


@dataclass(frozen=True)
class Editable:
    """One of them. ``place`` is the directory as the machine names it, ``location`` where it is read."""

    name: str
    version: str
    place: str
    location: Path


@dataclass(frozen=True)
class Commit:
    """What git says of a checkout: the tag or commit, and how many files differ from it."""

    described: str
    changed: int


def installs(host: Host) -> list[Editable]:
    """Return the editable installs, as `direct_url.json` (PEP 610) states them, in import order."""
    found = []
    for directory in dict.fromkeys(site_directories(host)):
        for record in sorted(directory.glob("*.dist-info/direct_url.json")):
            if place := _place(record):
                name, _, version = record.parent.name.removesuffix(".dist-info").partition("-")
                found.append(Editable(canonicalize_name(name), version, place, host.path(place)))
    return found


def commit(host: Host, place: str) -> Commit | None:
    """Return what git says of a checkout, or None when it is none or git does not answer."""
    # A checkout in a container belongs to another user than the one who looks, which git refuses by default.
    git = ["git", "-c", f"safe.directory={place}", "-C", place]
    described = host.run([*git, "describe", "--tags", "--always"], 10)
    changed = host.run([*git, "status", "--porcelain", "--untracked-files=no"], 20)
    if described.code != 0 or changed.code != 0:
        return None
    return Commit(described.stdout.strip(), len(changed.stdout.splitlines()))


def _place(record: Path) -> str | None:
    try:
        stated = json.loads(record.read_text(encoding="utf-8"))
        editable, url = stated["dir_info"]["editable"], urlparse(stated["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return unquote(url.path) if editable is True and url.scheme == "file" else None
