"""Verify torch_memory_saver libraries: which build each one is, and whether it is right for a stack."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from vimectl.env.memory_saver.elf import ElfLibrary, read_elf
from vimectl.env.memory_saver.known_builds import KnownBuild, Match, identify, machine_builds
from vimectl.env.memory_saver.library_files import LibraryFile, library_files, read_library
from vimectl.env.memory_saver.loading import HOOK_MODES, HookMode, candidates
from vimectl.stacks.schema import Stack
from vimectl.util.host import Host

Backend = Literal["ascend", "cuda", "rocm", "unknown"]
SaverVerdict = Literal["known-good", "known-bad", "unknown", "wrong-backend", "wrong-machine", "not-elf"]

_BACKENDS = {"npu": "ascend"}
# The runtime library of each accelerator that a build is linked with.
_RUNTIMES: tuple[tuple[str, Backend], ...] = (
    ("libascendcl.so", "ascend"),
    ("libamdhip64.so", "rocm"),
    ("libcudart.so", "cuda"),
    ("libcuda.so", "cuda"),
)
# Allocator entry points that a preloaded build replaces.
_REPLACED = frozenset({"cudaMalloc", "aclrtMalloc", "aclrtMallocPhysical", "aclrtMallocAlign32", "hipMalloc"})
# Including the end of the string, because TMS_INIT_ENABLE_CPU_BACKUP does not count.
_INIT_ENABLE = b"TMS_INIT_ENABLE\0"
# The newest release has 24; a crafted file may have any number.
_MAX_FUNCTIONS = 100
_WARNING = "eight digits of an MD5 identify a file, they do not authenticate it: tms record keeps its SHA-256"


@dataclass(frozen=True)
class SaverBuild:
    """One library with its identity and verdict; ``note`` is the reason for the verdict.

    ``exported`` has its ``tms_*`` functions. ``loads`` says if the processes of a job would load it, and
    ``why`` gives the reason; None for a library that was given by path. ``warning`` is shown to people.
    """

    path: str
    md5: str = ""
    sha256: str = ""
    size: int = 0
    hook_mode: HookMode | None = None
    backend: Backend = "unknown"
    machine: str | None = None
    verdict: SaverVerdict = "unknown"
    match: Match | None = None
    name: str | None = None
    note: str = ""
    needed: tuple[str, ...] = ()
    exported: tuple[str, ...] = ()
    knows_init_enable: bool | None = None
    build_id: str | None = None
    warning: str = ""
    loads: bool | None = None
    why: str = ""


def required_backend(stack: Stack | None) -> str | None:
    """Return the backend that a stack needs the library for; None without a stack or a need."""
    return _BACKENDS.get(stack.stack.device) if stack else None


def verify_installed(host: Host, stack: Stack | None) -> list[SaverBuild]:
    """Classify every library that is installed on a machine, those that a job would load first.

    A library that cannot be read has the verdict ``unknown``.
    """
    machine, extra = _machine(host), () if host.is_here else machine_builds(host)
    builds = []
    for found in candidates(host, _hook_modes(host, stack)):
        build = classify(read_library(found.path), required_backend(stack), machine, extra)
        builds.append(replace(build, loads=found.loads, why=found.why))
    return builds


def verify_path(path: Path, host: Host, stack: Stack | None) -> list[SaverBuild]:
    """Classify the libraries at a path for a machine. Raises UsageError when there are none."""
    machine = _machine(host)
    return [classify(file, required_backend(stack), machine) for file in library_files(path)]


def all_good(builds: Sequence[SaverBuild], stack: Stack | None) -> bool:
    """Return True when a job would load what the stack needs, and only known-good libraries.

    Libraries that are not loaded do not count. Libraries given by path do.
    """
    loaded = [build for build in builds if build.loads is not False]
    needed = required_backend(stack) is not None
    return (bool(loaded) or not needed) and all(build.verdict == "known-good" for build in loaded)


def classify(
    file: LibraryFile, backend: str | None, machine: str | None, extra: Sequence[KnownBuild] = ()
) -> SaverBuild:
    """Classify a library for a stack that needs ``backend`` on ``machine``; None accepts any.

    A library built for another backend or machine is wrong even if its digest is known. ``extra`` are known
    builds in addition to those of this machine.
    """
    if file.content is None:
        return SaverBuild(file.path, size=file.size, note=file.problem)
    md5 = hashlib.md5(file.content, usedforsecurity=False).hexdigest()
    sha256 = hashlib.sha256(file.content).hexdigest()
    found = SaverBuild(file.path, md5, sha256, file.size)
    library = read_elf(file.content)
    if library is None:
        return replace(found, verdict="not-elf", note="not a readable ELF shared library")
    linked = _backend(library)
    known, match = identify(md5, sha256, extra) or (None, None)
    if known and match == "md5-prefix" and linked not in (known.backend, "unknown"):
        known = match = None  # another file with the same prefix
    built_for = known.backend if known and linked == "unknown" else linked
    verdict, note = _verdict(library, known, built_for, backend, machine)
    return replace(
        found,
        hook_mode=_hook_mode(file.path, library),
        backend=built_for,
        machine=library.machine,
        verdict=verdict,
        match=match,
        name=known.name if known else None,
        note=note,
        needed=library.needed,
        exported=tuple(sorted(_functions(library))[:_MAX_FUNCTIONS]),
        knows_init_enable=_INIT_ENABLE in file.content,
        build_id=library.build_id,
        warning=_WARNING if match == "md5-prefix" else "",
    )


def _verdict(
    library: ElfLibrary,
    known: KnownBuild | None,
    built_for: Backend,
    backend: str | None,
    machine: str | None,
) -> tuple[SaverVerdict, str]:
    """Return the verdict and the reason for it."""
    other_machine = machine is not None and library.machine != machine
    here = f"built for {library.machine}, this machine is {machine}"
    if backend is not None and built_for not in (backend, "unknown"):
        note = f"built for {built_for}, the stack needs {backend}"
        return "wrong-backend", f"{note}; {here}" if other_machine else note
    if other_machine:
        return "wrong-machine", here
    if known:
        return known.verdict, known.note
    if not _functions(library):
        return "unknown", "exports none of the tms_ functions: not this library at all, or a broken build"
    return "unknown", "no build with these digests is known"


def _functions(library: ElfLibrary) -> list[str]:
    return [name for name in library.exported if name.startswith("tms_")]


def _backend(library: ElfLibrary) -> Backend:
    for name, backend in _RUNTIMES:
        if any(needed.startswith(name) for needed in library.needed):
            return backend
    return "unknown"


def _hook_mode(path: str, library: ElfLibrary) -> HookMode | None:
    name = Path(path).name
    if "tms_torch_malloc" in library.exported or "hook_mode_torch" in name:
        return "torch"
    if library.exported & _REPLACED or "hook_mode_preload" in name:
        return "preload"
    return None


def _hook_modes(host: Host, stack: Stack | None) -> list[HookMode]:
    """Return the hook modes that a trainer may use: that of the stack, else those of TMS_HOOK_MODE."""
    if stack:
        mode = HOOK_MODES.get(stack.stack.device)
        return [mode] if mode else []
    given = host.environment.get("TMS_HOOK_MODE")
    return [mode for mode in get_args(HookMode) if given in (None, mode)]


def _machine(host: Host) -> str | None:
    return host.run(["uname", "-m"], 5).stdout.strip() or None
