"""Read the installed packages (metadata, files, editable installs), Python and glibc. Imports nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from vime_runtime.spec.errors import VimeError

from vimectl.doctor.facts import Unavailable
from vimectl.stacks.detection import find
from vimectl.stacks.installed import InstalledDistribution, distributions, site_directories
from vimectl.stacks.schema import Marker, Stack
from vimectl.util import git
from vimectl.util.dist_info import editable_source, record_hash
from vimectl.util.host import ABSENT, NOT_RUN, Host

# Compiled against one version of torch, so their requirements matter although the stack does not have them.
TORCH_COMPANIONS = ("torchvision", "torchaudio")
# Distributions with a module of another name than theirs with underscores.
_MODULES = {
    "megatron-core": "megatron.core",
    "python-dateutil": "dateutil",
    "triton-ascend": "triton",
}


@dataclass(frozen=True)
class EditableInstall:
    """An editable install. ``directory`` is its path on the machine."""

    name: str
    version: str
    directory: str


@dataclass(frozen=True)
class DistributionMetadata:
    """The metadata of an installed distribution.

    ``requires`` are its requirements without those of extras; their markers are not evaluated. ``tags`` are
    those of its wheel, such as ``cp311-cp311-manylinux_2_28_aarch64``. ``modules`` maps the path of each
    top-level ``__init__.py`` to what is wrong with it, compared with the digest in RECORD (empty: nothing).
    ``glibc`` is the version that its wheel needs (manylinux tag); None if it is not known. ``installed_at``
    is in seconds since the epoch.
    """

    distribution: InstalledDistribution
    requires: tuple[Requirement, ...]
    tags: tuple[str, ...]
    modules: dict[str, str]
    glibc: tuple[int, int] | None
    installed_at: float

    def requirement(self, name: str) -> Requirement | None:
        """Return the requirement of a distribution, or None."""
        return next((one for one in self.requires if canonicalize_name(one.name) == name), None)


def module_of(distribution: str) -> str:
    """Return the name of the module that a distribution of a stack installs."""
    return _MODULES.get(distribution, distribution.replace("-", "_"))


def distribution_names(stack: Stack, *packages: str) -> set[str]:
    """Return the canonical names of all distributions that provide packages of a stack, by default all."""
    wanted = packages or stack.packages
    return {canonicalize_name(name) for package in wanted for name in stack.distributions(package)}


def read_metadata(host: Host, stack: Stack) -> dict[str, DistributionMetadata]:
    """Return the metadata of the installed packages of the stack and of TORCH_COMPANIONS, by package name.

    The packages are those with a version, with a range, and with a pinned commit.
    """
    installed = distributions(host)
    found = {name: find(stack, name, installed) for name in (*stack.packages, *stack.ranges)}
    others = (*TORCH_COMPANIONS, *(pin.distribution for pin in stack.commits.values()))
    found |= {name: installed[name][0] for name in others if name in installed}
    return {name: _metadata(host, item) for name, item in found.items() if item}


def _metadata(host: Host, item: InstalledDistribution) -> DistributionMetadata:
    wheel = host.read(f"{item.metadata}/WHEEL") or ""
    glibc = re.findall(r"manylinux_(\d+)_(\d+)", wheel)
    location = host.status(item.location)
    return DistributionMetadata(
        item,
        tuple(_requirements(host.read(f"{item.metadata}/METADATA") or "")),
        tuple(re.findall(r"^Tag: *(\S+)", wheel, re.MULTILINE)),
        dict(_modules(host, item, host.read(f"{item.metadata}/RECORD") or "")),
        max(((int(major), int(minor)) for major, minor in glibc), default=None),
        location.st_mtime if location else 0.0,
    )


def _requirements(metadata: str) -> Iterator[Requirement]:
    for line in metadata.partition("\n\n")[0].splitlines():
        # Most requirements belong to extras: skip them before the slow parse.
        if line.startswith("Requires-Dist:") and not re.search(r"\bextra\b *==", line):
            with suppress(InvalidRequirement):
                yield Requirement(line.partition(":")[2].strip())


def _modules(host: Host, item: InstalledDistribution, record: str) -> Iterator[tuple[str, str]]:
    for line in record.splitlines():
        path, _, rest = line.partition(",")
        if path.endswith("/__init__.py") and path.count("/") == 1:
            digest = rest.partition(",")[0]
            content = host.read_bytes(f"{item.location}/{path}")
            if content is None:
                problem = host.problem(f"{item.location}/{path}")
                yield path, "is missing" if problem == ABSENT else f"is {problem}"
                continue
            good = not digest.startswith("sha256=") or digest == record_hash(content)
            yield path, "" if good else "is of another package"


def read_glibc(host: Host) -> tuple[int, int] | None:
    """Return the version of glibc, or None if the C library is another one.

    Raises:
        Unavailable: no command can be run.
    """
    answer = host.run(["getconf", "GNU_LIBC_VERSION"], 5)
    if answer.code == NOT_RUN:
        raise Unavailable(answer.stderr)
    found = re.match(r"glibc (\d+)\.(\d+)", answer.stdout)
    return (int(found[1]), int(found[2])) if found else None


def read_marker(host: Host, marker: Marker) -> tuple[str, bool]:
    """Return the installed file of a marker, and True if a line matches. Raises Unavailable."""
    for directory in site_directories(host):
        path = f"{directory}/{marker.path}"
        if host.is_file(path):
            return path, host.search(path, marker.pattern) is not None
    raise Unavailable(f"no {marker.path} is installed")


def read_editable_installs(host: Host) -> list[EditableInstall]:
    """Return the editable installs that `direct_url.json` (PEP 610) records, in import order."""
    found = []
    for directory in dict.fromkeys(site_directories(host)):
        for record in host.glob(f"{directory}/*.dist-info/direct_url.json"):
            if path := editable_source(host.read(record)):
                folder = record.split("/")[-2]
                name, _, version = folder.removesuffix(".dist-info").partition("-")
                found.append(EditableInstall(canonicalize_name(name), version, path))
    return found


def read_checkout(host: Host, directory: str) -> tuple[str, int] | None:
    """Return the output of `git describe`, and the number of files that differ from the commit.

    None if the directory is no checkout or git does not answer.
    """
    try:
        # A checkout in a container often belongs to another user.
        words = git.command(directory, work_tree=True, any_owner=True)
    except VimeError:
        return None
    described = host.run([*words, "describe", "--tags", "--always"], 10)
    changed = host.run(
        [*words, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=dirty"], 20
    )
    if described.code != 0 or changed.code != 0:
        return None
    return described.stdout.strip(), len(changed.stdout.splitlines())


def find_package(host: Host, stack: Stack, package: str, module: str) -> tuple[str | None, str | None]:
    """Return the directory in another root that holds a package, as its interpreter would find it.

    The version is returned only for an editable install, whose metadata is elsewhere.
    """
    names = distribution_names(stack, package)
    places: list[tuple[str, str | None]] = [
        (one.directory, one.version) for one in read_editable_installs(host) if one.name in names
    ]
    places += [(place, None) for place in site_directories(host)]
    return next((one for one in places if host.is_file(f"{one[0]}/{module}/__init__.py")), (None, None))
