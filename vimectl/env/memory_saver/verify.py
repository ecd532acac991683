"""Verify torch_memory_saver libraries: which build each one is, and whether it is right for a stack."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, get_args

from vime_runtime.spec.errors import UsageError

from vimectl.env.memory_saver.elf import read_elf
from vimectl.env.memory_saver.known_builds import KnownBuild, Match, identify, known_builds
from vimectl.env.memory_saver.loading import HOOK_MODES, PACKAGE, HookMode, candidates, files_in
from vimectl.stacks.schema import Stack
from vimectl.util.host import Host

Backend = Literal["ascend", "cuda", "rocm", "unknown"]
SaverVerdict = Literal["known-good", "known-bad", "unknown", "wrong-backend", "wrong-machine", "not-elf"]

_BACKENDS = {"npu": "ascend"}
# The runtime library of each accelerator that a build is linked with, and the backend.
_RUNTIMES: dict[str, Backend] = {
    **{"libascendcl.so": "ascend", "libamdhip64.so": "rocm"},
    **{"libcudart.so": "cuda", "libcuda.so": "cuda"},
}
_MAX_UNPACKED = 32 * 2**20  # four times what a released wheel holds
_HINT = "give a .so, a wheel, or the directory of the package"


@dataclass(frozen=True)
class SaverBuild:
    """One library with its identity and verdict; ``note`` is the reason for the verdict.

    ``hook_mode`` is None for a file that is not this library. ``loads`` says if the processes of a job would
    load it, and ``why`` gives the reason; None for a library that was given by path.
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
    loads: bool | None = None
    why: str = ""


def required_backend(stack: Stack | None) -> str | None:
    """Return the backend that a stack needs the library for; None without a stack or a need."""
    return _BACKENDS.get(stack.stack.device) if stack else None


def verify_installed(host: Host, stack: Stack | None) -> list[SaverBuild]:
    """Classify every library that is installed on a machine, those that a job would load first.

    A library that cannot be read has the verdict ``unknown``. Raises UsageError when a file of known builds
    is malformed or cannot be read.
    """
    machine, known = _machine(host), known_builds(host)
    given = HOOK_MODES.get(stack.stack.device, "") if stack else host.environment.get("TMS_HOOK_MODE")
    modes = [mode for mode in get_args(HookMode) if given in (None, mode)]
    builds = []
    for path, loads, why in candidates(host, modes):
        content = host.read_bytes(path)
        build = SaverBuild(path, note=f"cannot be read: {host.problem(path)}")
        if content is not None:
            build = classify(path, content, required_backend(stack), machine, known)
        builds.append(replace(build, loads=loads, why=why))
    return builds


def verify_path(path: Path, host: Host, stack: Stack | None) -> list[SaverBuild]:
    """Classify the libraries at a path for a machine: a .so, a wheel, or a directory that holds the package.

    Raises UsageError when there is none, when one cannot be read, and as ``verify_installed`` does.
    """
    machine, known, given = _machine(host), known_builds(host), os.path.abspath(path)
    libraries: dict[str, bytes] = {}
    for file in files_in(given, host) if host.is_dir(given) else [given]:
        content = host.read_bytes(file)
        if content is None:
            raise UsageError(f"{file}: cannot be read: {host.problem(file)}", _HINT)
        libraries |= _unpack(file, content) if file.endswith(".whl") else {file: content}
    if not libraries:
        raise UsageError(f"{path}: no {PACKAGE}*.so in it", _HINT)
    return [classify(*library, required_backend(stack), machine, known) for library in libraries.items()]


def all_good(builds: Sequence[SaverBuild], stack: Stack | None) -> bool:
    """Return True when a job would load what the stack needs, and only known-good libraries.

    Libraries that are not loaded do not count. Libraries given by path do.
    """
    loaded = [build for build in builds if build.loads is not False]
    needed = required_backend(stack) is not None
    return (bool(loaded) or not needed) and all(build.verdict == "known-good" for build in loaded)


def classify(
    path: str, content: bytes, backend: str | None, machine: str | None, known: Sequence[KnownBuild]
) -> SaverBuild:
    """Classify a library for a stack that needs ``backend`` on ``machine``; None accepts any.

    A library built for another backend or machine is wrong even if its digest is known.
    """
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    sha256 = hashlib.sha256(content).hexdigest()
    found = SaverBuild(path, md5, sha256, len(content))
    library = read_elf(content)
    if library is None:
        return replace(found, verdict="not-elf", note="not a readable 64-bit ELF shared library")
    found = replace(found, hook_mode=_hook_mode(content), machine=library[0], needed=library[1])
    runtimes = (_RUNTIMES[name] for name in _RUNTIMES if any(n.startswith(name) for n in found.needed))
    linked: Backend = next(runtimes, "unknown")
    build, match = identify(md5, sha256, known) or (None, None)
    if build and match == "md5-prefix" and linked not in (build.backend, "unknown"):
        build = match = None  # another file with the same prefix
    built_for: Backend = build.backend if build and linked == "unknown" else linked
    found = replace(found, backend=built_for, match=match, name=build.name if build else None)
    wrong: dict[SaverVerdict, str] = {}
    if backend is not None and found.backend not in (backend, "unknown"):
        wrong["wrong-backend"] = f"built for {found.backend}, the stack needs {backend}"
    if machine not in (None, found.machine):
        wrong["wrong-machine"] = f"built for {found.machine}, this machine is {machine}"
    if wrong:
        return replace(found, verdict=next(iter(wrong)), note="; ".join(wrong.values()))
    if build:
        return replace(found, verdict=build.verdict, note=build.note)
    if found.hook_mode is None:
        return replace(found, note="has no function tms_pause: not this library at all, or a broken build")
    return replace(found, note="no build with these digests is known")


def _hook_mode(content: bytes) -> HookMode | None:
    """Return the one hook mode of a library (``csrc/entrypoint.cpp``), None for another file."""
    if b"tms_pause\0" not in content:
        return None
    return "torch" if b"tms_torch_malloc\0" in content else "preload"


def _machine(host: Host) -> str | None:
    return host.run(["uname", "-m"], 5).stdout.strip() or None


def _unpack(wheel: str, content: bytes) -> dict[str, bytes]:
    """Return the libraries in a wheel. The path of each is ``wheel/member``."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [m for m in archive.infolist() if fnmatchcase(m.filename, f"{PACKAGE}*.so")]
            if sum(max(m.file_size, 2**20) for m in members) > _MAX_UNPACKED:
                raise ValueError("more or larger libraries than any release has")
            if {m.compress_type for m in members} - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                raise ValueError("not compressed like a wheel")
            # Without its size, a member could unpack to more than it states.
            return {f"{wheel}/{m.filename}": archive.open(m).read(m.file_size) for m in members}
    except Exception as e:  # zipfile raises errors of many kinds for a damaged or crafted archive
        raise UsageError(f"{wheel}: not a readable wheel: {e}", "download it again") from e
