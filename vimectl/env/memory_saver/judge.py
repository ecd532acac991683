"""Judge a torch_memory_saver library: what it is, and whether it is the right one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vimectl.env.memory_saver.builds import KnownBuild, Match, identify
from vimectl.env.memory_saver.elf import Library, read_library
from vimectl.env.memory_saver.find import File
from vimectl.env.memory_saver.loading import HookMode

Backend = Literal["ascend", "cuda", "rocm", "unknown"]
Verdict = Literal["known-good", "known-bad", "unknown", "wrong-backend", "wrong-machine", "not-elf"]

# The library of each accelerator's runtime that a build is linked with.
_RUNTIMES: tuple[tuple[str, Backend], ...] = (
    ("libascendcl.so", "ascend"),
    ("libamdhip64.so", "rocm"),
    ("libcudart.so", "cuda"),
    ("libcuda.so", "cuda"),
)
# Allocator entry points that a preloaded build replaces.
_REPLACED = frozenset({"cudaMalloc", "aclrtMalloc", "aclrtMallocPhysical", "aclrtMallocAlign32", "hipMalloc"})
# With the end of the string, or TMS_INIT_ENABLE_CPU_BACKUP would count.
_INIT_ENABLE = b"TMS_INIT_ENABLE\0"
# The newest release has 24; a crafted file may have any number.
_MOST_FUNCTIONS = 100
_WARNING = "eight digits of an MD5 identify a file, they do not authenticate it: tms record keeps its SHA-256"


@dataclass(frozen=True)
class Build:
    """One library with its identity and the verdict on it; ``note`` says what the verdict rests on.

    ``exported`` are its ``tms_*`` functions. ``loads`` is whether the processes of a job would load it and
    ``why`` how that comes about; None for a library that was given by path. ``warning`` is for people.
    """

    path: str
    md5: str
    sha256: str
    size: int
    hook_mode: HookMode | None
    backend: Backend
    machine: str | None
    verdict: Verdict
    match: Match | None
    name: str | None
    note: str
    needed: tuple[str, ...] = ()
    exported: tuple[str, ...] = ()
    knows_init_enable: bool | None = None
    build_id: str | None = None
    warning: str = ""
    loads: bool | None = None
    why: str = ""


def judge(file: File, backend: str | None, machine: str | None, also: Sequence[KnownBuild] = ()) -> Build:
    """Judge a library for a stack that wants ``backend`` on ``machine``; None accepts any.

    ``also`` are builds that are known besides those that are known here.

    A library built for something else is wrong whatever its digest; then the known builds decide.
    """
    if file.content is None:
        return Build(file.path, "", "", file.size, None, "unknown", None, "unknown", None, None, file.problem)
    md5 = hashlib.md5(file.content, usedforsecurity=False).hexdigest()
    sha256 = hashlib.sha256(file.content).hexdigest()
    library = read_library(file.content)
    linked = _backend(library) if library else "unknown"
    known = identify(md5, sha256, also)
    if known and known[1] == "md5-prefix" and linked not in (known[0].backend, "unknown"):
        known = None  # so many digits occur by chance, and here they did
    is_for = known[0].backend if known and linked == "unknown" else linked
    verdict, note = _verdict(library, known[0] if known else None, is_for, backend, machine)
    return Build(
        file.path,
        md5,
        sha256,
        file.size,
        _hook_mode(file.path, library) if library else None,
        is_for,
        library.machine if library else None,
        verdict,
        known[1] if known else None,
        known[0].name if known else None,
        note,
        library.needed if library else (),
        tuple(sorted(_functions(library))[:_MOST_FUNCTIONS]) if library else (),
        _INIT_ENABLE in file.content if library else None,
        library.build_id if library else None,
        _WARNING if known and known[1] == "md5-prefix" else "",
    )


def _verdict(
    library: Library | None,
    known: KnownBuild | None,
    is_for: Backend,
    backend: str | None,
    machine: str | None,
) -> tuple[Verdict, str]:
    """The verdict, and what it rests on."""
    if library is None:
        return "not-elf", "not a readable ELF shared library"
    other_machine = machine is not None and library.machine != machine
    here = f"built for {library.machine}, this machine is {machine}"
    if backend is not None and is_for not in (backend, "unknown"):
        note = f"built for {is_for}, the stack needs {backend}"
        return "wrong-backend", f"{note}; {here}" if other_machine else note
    if other_machine:
        return "wrong-machine", here
    if known:
        return known.verdict, known.note
    if not _functions(library):
        return "unknown", "exports none of the tms_ functions: not this library at all, or a broken build"
    return "unknown", "no build with these digests is known"


def _functions(library: Library) -> list[str]:
    return [name for name in library.exported if name.startswith("tms_")]


def _backend(library: Library) -> Backend:
    for name, backend in _RUNTIMES:
        if any(needed.startswith(name) for needed in library.needed):
            return backend
    return "unknown"


def _hook_mode(path: str, library: Library) -> HookMode | None:
    name = Path(path).name
    if "tms_torch_malloc" in library.exported or "hook_mode_torch" in name:
        return "torch"
    if library.exported & _REPLACED or "hook_mode_preload" in name:
        return "preload"
    return None
