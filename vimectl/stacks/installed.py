"""List the distributions installed on a machine from their metadata directories, without importing them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from vimectl.util.dist_info import canonical_name
from vimectl.util.host import Host

# Where the interpreters of the supported systems and images keep packages.
_SITE_PATTERNS = (
    "/usr/lib/python3*/dist-packages",
    "/usr/lib/python3*/site-packages",
    "/usr/local/lib/python3*/dist-packages",
    "/usr/local/lib/python3*/site-packages",
    "/usr/local/python*/lib/python3*/site-packages",
    "/opt/*/lib/python3*/site-packages",
    "/root/*/lib/python3*/site-packages",
)


@dataclass(frozen=True)
class InstalledDistribution:
    """An installed distribution: canonical name, version, the directory it is in, and its metadata there.

    ``metadata`` is the path of its ``.dist-info`` directory, or of its ``.egg-info`` directory or file.
    """

    name: str
    version: str
    location: str
    metadata: str


def site_directories(host: Host) -> list[str]:
    """Return the directories that hold the machine's Python packages.

    For the running machine these are those of this interpreter. For another root they are those found in it,
    with those of the interpreters on its PATH first (an image's configuration has a PATH).
    """
    if host.is_here:
        return [path for entry in sys.path if os.path.isdir(path := os.path.abspath(entry))]
    programs = [PurePosixPath(entry) for entry in host.environment.get("PATH", "").split(":") if entry]
    patterns = [f"{entry.parent}/lib/python3*/site-packages" for entry in programs]
    found = [path for pattern in (*patterns, *_SITE_PATTERNS) for path in host.glob(pattern)]
    return [path for path in dict.fromkeys(found) if host.is_dir(path)]


def distributions(host: Host) -> dict[str, list[InstalledDistribution]]:
    """Return the installed distributions by canonical name; Python imports the first of each list."""
    found: dict[str, list[InstalledDistribution]] = {}
    for directory in dict.fromkeys(site_directories(host)):
        for item in _in_directory(host, directory):
            found.setdefault(item.name, []).append(item)
    return found


def _in_directory(host: Host, directory: str) -> Iterator[InstalledDistribution]:
    names = host.names(directory)
    for folder in (name for name in names if name.endswith(".dist-info")):
        # The directory is called NAME-VERSION by specification, escaped so that a single dash separates them.
        # This is much faster than parsing every METADATA.
        name, _, version = folder.removesuffix(".dist-info").partition("-")
        if host.is_dir(path := f"{directory}/{folder}"):
            yield InstalledDistribution(canonical_name(name), version, directory, path)
    for entry in (name for name in names if name.endswith(".egg-info")):
        path = f"{directory}/{entry}"
        text = host.read(f"{path}/PKG-INFO" if host.is_dir(path) else path) or ""
        fields = dict(re.findall(r"^(Name|Version): *(\S+)", text, re.MULTILINE))
        if len(fields) == 2:
            yield InstalledDistribution(canonical_name(fields["Name"]), fields["Version"], directory, path)
