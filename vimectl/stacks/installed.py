"""Which distributions are installed on a machine, read from their metadata folders, importing nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from packaging.utils import canonicalize_name

from vimectl.util.host import Host

# Where interpreters keep packages on the systems and images in use, relative to the root.
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
    """One installed distribution: canonical name, version, and the directory its metadata lies in."""

    name: str
    version: str
    location: Path


def site_directories(host: Host) -> list[Path]:
    """Return the directories in which the machine's Python packages lie.

    For the running machine these are this interpreter's; for another root, those found in it, the ones of
    the interpreters on its PATH first: an image states what that is.
    """
    if host.is_here:
        return [path for entry in sys.path if (path := Path(entry or ".")).is_dir()]
    programs = [PurePosixPath(entry) for entry in host.environment.get("PATH", "").split(":") if entry]
    found = [host.path(str(entry.parent)).glob("lib/python3*/site-packages") for entry in programs]
    found += [host.root.glob(pattern) for pattern in _SITE_PATTERNS]
    return list(dict.fromkeys(path for paths in found for path in sorted(paths) if path.is_dir()))


def distributions(host: Host) -> dict[str, list[InstalledDistribution]]:
    """Return what is installed by canonical name; the first of each list is the one that Python imports."""
    found: dict[str, list[InstalledDistribution]] = {}
    for directory in dict.fromkeys(site_directories(host)):
        for item in _in_directory(directory):
            found.setdefault(item.name, []).append(item)
    return found


def _in_directory(directory: Path) -> Iterator[InstalledDistribution]:
    for path in sorted(directory.glob("*.dist-info")):
        # The folder's name is NAME-VERSION by specification, escaped so that one dash divides them:
        # much faster than to parse every METADATA.
        name, _, version = path.name.removesuffix(".dist-info").partition("-")
        yield InstalledDistribution(canonicalize_name(name), version, directory)
    for path in sorted(directory.glob("*.egg-info")):
        from importlib.metadata import Distribution  # slow to import, and hardly ever needed

        metadata = Distribution.at(path).metadata
        if "Name" in metadata and "Version" in metadata:
            yield InstalledDistribution(canonicalize_name(metadata["Name"]), metadata["Version"], directory)
