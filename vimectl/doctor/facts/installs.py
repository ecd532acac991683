"""Find installs that were interrupted, that lost files, or whose checkout has moved away."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import PurePosixPath

from vimectl.doctor.facts.packages import DistributionMetadata
from vimectl.stacks.installed import InstalledDistribution, distributions, site_directories
from vimectl.util.dist_info import canonical_name, editable_source
from vimectl.util.host import Host

# Directories that images are slimmed by, and files that nothing imports.
_NOT_IMPORTED = re.compile(r"(^|/)(tests?|testing|include|share|docs?|examples?|benchmarks?)/|\.\./")
_IMPORTED = (".py", ".so")
_ABSOLUTE = re.compile(r"""(?:^|['"])(/[^'"\n]+)""", re.MULTILINE)


def read_interrupted_installs(host: Host) -> dict[str, str]:
    """Return the distributions whose installation was interrupted, each with the evidence.

    pip writes METADATA first and RECORD last.
    """
    found = {}
    for name, items in distributions(host).items():
        for item in items:
            if missing := _missing_metadata(host, item):
                found[name] = f"{item.metadata} has no {missing}"
    return found


def read_interrupted_removals(host: Host) -> dict[str, str]:
    """Return the directories to which pip moved what it was removing, by the name without its first letter.

    pip replaces the first letter by ``~`` until the removal is complete (``AdjacentTempDirectory`` in
    pip/_internal/utils/temp_dir.py).
    """
    found = {}
    for directory in dict.fromkeys(site_directories(host)):
        for entry in host.names(directory):
            if named := re.fullmatch(r"~(.+)-[^-]+\.dist-info", entry):
                found[canonical_name(named[1])] = f"{directory}/{entry}"
    return found


def _missing_metadata(host: Host, item: InstalledDistribution) -> str:
    if not item.metadata.endswith(".dist-info"):
        return ""
    names = host.names(item.metadata)
    if "METADATA" not in names:
        return "METADATA"
    if "RECORD" in names or "INSTALLER" not in names:
        return ""
    # Other installers, such as those of Linux distributions, may leave out RECORD.
    installer = (host.read(f"{item.metadata}/INSTALLER") or "").strip()
    return "RECORD" if installer in ("pip", "uv") else ""


def read_missing_files(host: Host, metadata: DistributionMetadata) -> list[str]:
    """Return the modules and libraries of a distribution that RECORD has and that do not exist."""
    item = metadata.distribution
    wanted: defaultdict[str, list[str]] = defaultdict(list)
    for line in (host.read(f"{item.metadata}/RECORD") or "").splitlines():
        path = line.partition(",")[0]
        if path.endswith(_IMPORTED) and not path.startswith("/") and not _NOT_IMPORTED.search(path):
            directory, _, name = path.rpartition("/")
            wanted[directory].append(name)
    missing = []
    for directory, names in sorted(wanted.items()):
        there = set(host.names(f"{item.location}/{directory}".rstrip("/")))
        missing += [f"{directory}/{name}".lstrip("/") for name in names if name not in there]
    return missing


def read_editable_paths(host: Host, item: InstalledDistribution) -> list[str]:
    """Return the paths that an editable install makes importable, and the directory that it was made from."""
    source = editable_source(host.read(f"{item.metadata}/direct_url.json"))
    found = [source] if source else []
    for name in host.names(item.location):
        if _belongs(name, item):
            found += _paths(host.read(f"{item.location}/{name}") or "")
    return list(dict.fromkeys(found))


def is_found_by_hook(host: Host, item: InstalledDistribution) -> bool:
    """Return True if an import hook of setuptools finds an editable install: after all of sys.path."""
    return any(name.endswith("_finder.py") and _belongs(name, item) for name in host.names(item.location))


def _belongs(name: str, item: InstalledDistribution) -> bool:
    """Return True for the file of a build backend: setuptools, or hatchling, flit and others."""
    stem = re.sub(r"^_+(editable__+\.?)?|(-|_)\d.*$|\.(pth|py)$|_finder\.py$", "", name)
    return (
        name.startswith("_") and name.endswith((".pth", "_finder.py")) and canonical_name(stem) == item.name
    )


def _paths(text: str) -> Iterator[str]:
    mapping = re.search(r"^MAPPING[^=]*=\s*(\{.*\})", text, re.MULTILINE)
    for path in _ABSOLUTE.findall(mapping[1] if mapping else text):
        if str(PurePosixPath(path)) != "/":
            yield path.rstrip()
