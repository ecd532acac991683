"""Judge a torch_memory_saver library: what it is, and whether it is the right one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from vimectl.memory_saver.builds import Match, identify
from vimectl.memory_saver.elf import Library, read_library
from vimectl.memory_saver.find import File

Backend = Literal["ascend", "cuda", "rocm", "unknown"]
HookMode = Literal["torch", "preload"]
Verdict = Literal["known-good", "known-bad", "unknown", "wrong-backend", "wrong-machine", "not-elf"]

# The library of each accelerator's runtime that a build is linked with.
_RUNTIMES: tuple[tuple[str, Backend], ...] = (
    ("libascendcl.so", "ascend"),
    ("libamdhip64.so", "rocm"),
    ("libcudart.so", "cuda"),
    ("libcuda.so", "cuda"),
)
# Allocator entry points that a preloaded build replaces.
_REPLACED = frozenset({"cudaMalloc", "aclrtMalloc", "aclrtMallocPhysical", "hipMalloc"})


@dataclass(frozen=True)
class Build:
    """One library with its identity and the verdict on it; ``note`` says what the verdict rests on."""

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


def judge(file: File, backend: str | None, machine: str | None) -> Build:
    """Judge a library for a stack that wants ``backend`` on ``machine``; None accepts any.

    A library built for something else is wrong whatever its digest; then the known builds decide.
    """
    md5 = hashlib.md5(file.content, usedforsecurity=False).hexdigest()
    sha256 = hashlib.sha256(file.content).hexdigest()
    library = read_library(file.content)
    known = identify(md5, sha256)
    is_for = _backend(library) if library else "unknown"
    verdict: Verdict
    if library is None:
        verdict, note = "not-elf", "not a readable ELF shared library"
    elif backend is not None and is_for not in (backend, "unknown"):
        verdict, note = "wrong-backend", f"built for {is_for}, the stack needs {backend}"
    elif machine is not None and library.machine != machine:
        verdict, note = "wrong-machine", f"built for {library.machine}, this machine is {machine}"
    elif known is None:
        verdict, note = "unknown", "no build with these digests is known"
    else:
        verdict, note = known[0].verdict, known[0].note
    return Build(
        file.path,
        md5,
        sha256,
        len(file.content),
        _hook_mode(file.path, library) if library else None,
        is_for,
        library.machine if library else None,
        verdict,
        known[1] if known else None,
        known[0].name if known else None,
        note,
    )


def _backend(library: Library) -> Backend:
    for name, backend in _RUNTIMES:
        if any(needed.startswith(name) for needed in library.needed):
            return backend
    return "unknown"


def _hook_mode(path: str, library: Library) -> HookMode | None:
    if "tms_torch_malloc" in library.exported or "hook_mode_torch" in path:
        return "torch"
    if library.exported & _REPLACED or "hook_mode_preload" in path:
        return "preload"
    return None
