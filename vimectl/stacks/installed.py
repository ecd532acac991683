"""List the distributions installed on a machine from their metadata directories, without importing them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vimectl.util.dist_info import canonical_name
from vimectl.util.host import Host

# Where the interpreters of the supported systems and images keep packages, relative to the root.
_SITE_PATTERNS = (
    "usr/lib/python3*/dist-packages",
    "usr/lib/python3*/site-packages",
    "usr/local/lib/python3*/dist-packages",
    "usr/local/lib/python3*/site-packages",
    "usr/local/python*/lib/python3*/site-packages",
    "opt/*/lib/python3*/site-packages",
    "root/*/lib/python3*/site-packages",
)


@dataclass(frozen=True)
class InstalledDistribution:
    """An installed distribution: canonical name, version, and the directory that holds its metadata."""

    name: str
    version: str
    location: Path


def site_directories(host: Host) -> list[Path]:
    """Return the directories that hold the machine's Python packages.

    For the running machine these are those of this interpreter. For another root they are those found in it,
    with those of the interpreters on its PATH first (an image's configuration has a PATH).
    """
    if host.is_here:
        return [path for entry in sys.path if (path := Path(entry or ".")).is_dir()]
    programs = [PurePosixPath(entry) for entry in host.environment.get("PATH", "").split(":") if entry]
    found = [host.path(str(entry.parent)).glob("lib/python3*/site-packages") for entry in programs]
    found += [host.root.glob(pattern) for pattern in _SITE_PATTERNS]
    return list(dict.fromkeys(path for paths in found for path in sorted(paths) if path.is_dir()))


def distributions(host: Host) -> dict[str, list[InstalledDistribution]]:
    """Return the installed distributions by canonical name; Python imports the first of each list."""
    found: dict[str, list[InstalledDistribution]] = {}
    for directory in dict.fromkeys(site_directories(host)):
        for item in _in_directory(directory):
            found.setdefault(item.name, []).append(item)
    return found


def _in_directory(directory: Path) -> Iterator[InstalledDistribution]:
    for path in sorted(directory.glob("*.dist-info")):
        # The directory is called NAME-VERSION by specification, escaped so that a single dash separates them.
        # This is much faster than parsing every METADATA.
        name, _, version = path.name.removesuffix(".dist-info").partition("-")
        yield InstalledDistribution(canonical_name(name), version, directory)
    for path in sorted(directory.glob("*.egg-info")):
        from importlib.metadata import Distribution  # slow to import and rarely needed

        metadata = Distribution.at(path).metadata
        if "Name" in metadata and "Version" in metadata:
            yield InstalledDistribution(canonical_name(metadata["Name"]), metadata["Version"], directory)
