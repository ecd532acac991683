"""List the distributions installed on a machine from their metadata directories, without importing them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from vimectl.util.dist_info import canonical_name, editable_source
from vimectl.util.host import Host


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
    """Return the directories that hold the Python packages of a machine, in import order.

    They are those of the interpreter that is examined, see ``interpreters.examined_interpreter``.
    """
    if host.package_directories is not None:
        return list(host.package_directories)
    if host.is_here and host.given_python is None:
        return [path for entry in sys.path if os.path.isdir(path := os.path.abspath(entry))]
    from vimectl.stacks.interpreters import examined_interpreter  # `patch status` does not need it

    return list(examined_interpreter(host).directories)


def distributions(host: Host) -> dict[str, list[InstalledDistribution]]:
    """Return the installed distributions by canonical name; Python imports the first of each list."""
    found: dict[str, list[InstalledDistribution]] = {}
    for directory in dict.fromkeys(site_directories(host)):
        for item in _in_directory(host, directory):
            copies = found.setdefault(item.name, [])
            if not (copies and item.metadata.endswith(".egg-info") and _is_source_of(host, copies[0], item)):
                copies.append(item)
    return found


def _is_source_of(host: Host, installed: InstalledDistribution, item: InstalledDistribution) -> bool:
    """Return True if ``item`` is what a build left in the checkout of an editable install."""
    source = editable_source(host.read(f"{installed.metadata}/direct_url.json"))
    return source is not None and PurePosixPath(item.location).is_relative_to(source)


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
