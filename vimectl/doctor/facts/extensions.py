"""Read the compiled extensions of packages: for which Python and machine each of them is."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vimectl.doctor.facts.installs import read_editable_paths
from vimectl.stacks.installed import InstalledDistribution
from vimectl.util.host import Host

# The name of an extension module says for which Python and machine it is (PEP 3149), or that it uses the
# stable ABI. Other shared libraries are not loaded by the name of a module.
_NAME = re.compile(r"(?P<stem>.+?)\.(?:cpython-3(?P<minor>\d+)\w*-(?P<machine>\w+)-linux-gnu|abi3)\.so")
_MACHINES = {62: "x86_64", 183: "aarch64"}  # EM_X86_64, EM_AARCH64, elf(5)


@dataclass(frozen=True)
class Extension:
    """A compiled extension module.

    ``python`` is the version that its name has, empty for the stable ABI. ``machine`` is that of its content,
    empty if it is no 64-bit ELF file. ``module`` is its path without the tags.
    """

    path: str
    module: str
    python: str
    machine: str

    def problem(self, python: str, machine: str) -> str:
        """Return why an interpreter of this version (3.11) on this machine cannot load it, or nothing."""
        if not self.machine:
            return "is no shared library"
        if machine and self.machine != machine:
            return f"is for {self.machine}"
        return f"is for Python {self.python}" if python and self.python not in ("", python) else ""


def read_extensions(host: Host, item: InstalledDistribution, module: str) -> list[Extension] | None:
    """Return the extension modules of a distribution; None if its directory is not found."""
    relative = module.replace(".", "/")
    sources = (f"{path}/{relative}" for path in read_editable_paths(host, item))
    # A path of an editable install may be that of the module itself.
    mapped = (path for path in read_editable_paths(host, item) if path.endswith(f"/{relative}"))
    directories = (*mapped, *sources, f"{item.location}/{relative}")
    directory = next(filter(host.is_dir, directories), None)
    if directory is None:
        return None
    folders = [directory, *(path for path in _folders(host, directory))]
    paths = [f"{folder}/{name}" for folder in folders for name in host.names(folder) if _NAME.fullmatch(name)]
    return [_extension(host, path) for path in paths]


def read_conda_libraries(host: Host, items: tuple[InstalledDistribution, ...]) -> list[str]:
    """Return the shared libraries of those distributions that conda installed, into its own environments."""
    prefixes = {item.location: item.location.partition("/lib/python")[0] for item in items}
    conda = [location for location, prefix in prefixes.items() if host.is_dir(f"{prefix}/conda-meta")]
    return [
        f"{item.location}/{path}"
        for item in items
        if item.location in conda and (host.read(f"{item.metadata}/INSTALLER") or "").strip() == "conda"
        for path in re.findall(r"^([^,\n]+\.so),", host.read(f"{item.metadata}/RECORD") or "", re.MULTILINE)
    ]


def _folders(host: Host, directory: str) -> list[str]:
    """Return the directories in a directory. A name with a dot is a file."""
    paths = (f"{directory}/{name}" for name in host.names(directory) if "." not in name)
    return [path for path in paths if host.is_dir(path)]


def _extension(host: Host, path: str) -> Extension:
    folder, _, name = path.rpartition("/")
    named = _NAME.fullmatch(name)
    assert named is not None
    start = host.read_start(path, 20) or b""
    is_elf = start.startswith(b"\x7fELF\x02\x01") and len(start) == 20
    machine = int.from_bytes(start[18:20], "little") if is_elf else 0
    return Extension(
        path,
        f"{folder}/{named['stem']}",
        f"3.{named['minor']}" if named["minor"] else "",
        _MACHINES.get(machine, f"ELF machine {machine}") if is_elf else "",
    )
