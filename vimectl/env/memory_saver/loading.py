"""Which torch_memory_saver libraries the processes of a job would load, and why just these.

The package chooses by its own rule, which has changed from release to release; each is known by its source:

- 0.0.8 (CUDA): ``LD_PRELOAD`` alone, filled from ``torch_memory_saver_cpp.*.so``;
- 0.0.9, and the builds for Ascend: ``torch_memory_saver_hook_mode_<mode>.*.so``, exactly one;
- from 0.0.9.post1 on: the same with ``_cu<major>``, by the CUDA version of torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from vimectl.env.memory_saver.find import PACKAGE, in_directory
from vimectl.stacks.installed import site_directories
from vimectl.util.host import Host

HookMode = Literal["torch", "preload"]

# How `vimectl run` sets TMS_HOOK_MODE for the trainer; a test holds it against recipe/environment.toml.
HOOK_MODES: dict[str, HookMode] = {"npu": "torch", "cuda": "preload"}

_PRELOAD_FILE = "/etc/ld.so.preload"
_CUDA_OF_TORCH = re.compile(r"^cuda\b.*=\s*'(\d+)\.", re.MULTILINE)


@dataclass(frozen=True)
class Candidate:
    """A library that is there (or is named and is not), whether it would be loaded, and why or why not."""

    path: Path
    loads: bool
    why: str


@dataclass(frozen=True)
class _Choice:
    """What the package's loader takes: files of these names, and how it comes to them.

    ``exact``: there must be one such file, or the loader gives up.
    """

    pattern: str
    why: str
    exact: bool = True


def candidates(host: Host, modes: Sequence[HookMode]) -> list[Candidate]:
    """Return every library of a machine, those that would be loaded first.

    ``modes`` are the hook modes that a trainer may use; none when nothing here asks for the library.
    """
    found: dict[Path, Candidate] = {}
    for candidate in (*_preloaded(host), *_installed(host, modes)):
        found.setdefault(candidate.path, candidate)
    return sorted(found.values(), key=lambda candidate: not candidate.loads)


def _preloaded(host: Host) -> list[Candidate]:
    """What the dynamic loader puts into every process, whatever the package would choose."""
    sources = {
        "LD_PRELOAD": host.environment.get("LD_PRELOAD", ""),
        _PRELOAD_FILE: host.read(_PRELOAD_FILE) or "",
    }
    return [
        Candidate(host.path(entry), True, f"{source} names it: every process has it, whatever the hook mode")
        for source, text in sources.items()
        for entry in re.split(r"[\s:]+", text)
        if PACKAGE in entry
    ]


def _installed(host: Host, modes: Sequence[HookMode]) -> list[Candidate]:
    """The libraries beside each copy of the package, in import order; the first copy is the one imported."""
    found: list[Candidate] = []
    imported: Path | None = None
    for directory in import_path(host):
        files = in_directory(directory)
        package = directory / PACKAGE
        if not (package / "__init__.py").is_file():
            found += [Candidate(file, False, f"there is no package {PACKAGE} beside it") for file in files]
        elif imported:
            found += [
                Candidate(file, False, f"Python imports the package in {imported} first") for file in files
            ]
        else:
            imported = directory
            found += _chosen(package, files, modes, host)
    return found


def _chosen(package: Path, files: list[Path], modes: Sequence[HookMode], host: Host) -> list[Candidate]:
    if not modes:
        return [Candidate(file, False, "nothing here asks for it") for file in files]
    choices = [_choice(package, mode, host) for mode in modes]
    chosen: dict[Path, str] = {}
    rejected: dict[Path, str] = {}
    for choice in choices:
        # The package looks in its own folder and in the one above it.
        near = [file for file in files if file.parent in (package, package.parent)]
        taken = [file for file in near if fnmatch(file.name, choice.pattern)]
        if choice.exact and len(taken) > 1:
            gives_up = f"{choice.why}, and gives up because there are {len(taken)} of them"
            rejected |= dict.fromkeys(taken, gives_up)
        else:
            chosen |= dict.fromkeys(taken, choice.why)
    other = f"the package takes {' or '.join(choice.pattern for choice in choices)}"
    return [
        Candidate(file, file in chosen, chosen.get(file) or rejected.get(file) or other) for file in files
    ]


def _choice(package: Path, mode: HookMode, host: Host) -> _Choice:
    """Read the rule out of the package's own source, which is the only thing that really decides."""
    stem = f"{PACKAGE}_hook_mode_{mode}"
    where = f"Python imports {package}, which in hook mode {mode} takes"
    if not (package / "utils.py").is_file():
        pattern = f"{PACKAGE}_cpp.*.so"
        return _Choice(pattern, f"Python imports {package}, which preloads {pattern}")
    if "_cu{major}" not in _text(package / "utils.py"):
        return _Choice(f"{stem}.*.so", f"{where} {stem}.*.so")
    major = _cuda_major(host)
    if major:
        return _Choice(f"{stem}_cu{major}.*.so", f"{where} {stem}_cu{major}.*.so for torch's CUDA {major}")
    pattern = f"{stem}_cu*.*.so"
    return _Choice(
        pattern, f"{where} one of {pattern}, by the libcudart that it finds; torch names no CUDA", False
    )


def _cuda_major(host: Host) -> str | None:
    for directory in import_path(host):
        version = directory / "torch" / "version.py"
        if version.is_file():
            found = _CUDA_OF_TORCH.search(_text(version))
            return found.group(1) if found else None
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def import_path(host: Host) -> list[Path]:
    """The directories that Python looks in, in its order: PYTHONPATH, then those of the interpreter."""
    # Of the running machine, sys.path has it already.
    given = "" if host.is_here else host.environment.get("PYTHONPATH", "")
    directories = [host.path(entry) for entry in given.split(":") if entry]
    return list(dict.fromkeys([*directories, *site_directories(host)]))
