"""Find which torch_memory_saver libraries the processes of a job would load, and why.

The rule of the package changed between releases and is recognized by its source code:

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

from vimectl.env.memory_saver.library_files import PACKAGE, files_in
from vimectl.stacks.installed import site_directories
from vimectl.util.host import Host

HookMode = Literal["torch", "preload"]

# The TMS_HOOK_MODE that `vimectl run` sets for the trainer; a test compares it with recipes/environment.toml.
HOOK_MODES: dict[str, HookMode] = {"npu": "torch"}

_PRELOAD_FILE = "/etc/ld.so.preload"
_CUDA_OF_TORCH = re.compile(r"^cuda\b.*=\s*'(\d+)\.", re.MULTILINE)


@dataclass(frozen=True)
class LoadCandidate:
    """A library that exists or that a setting names, whether it would be loaded, and the reason."""

    path: Path
    loads: bool
    why: str


@dataclass(frozen=True)
class _LoaderRule:
    """The file name pattern that the package loads, and the reason.

    ``exact``: the loader fails unless there is exactly one such file.
    """

    pattern: str
    why: str
    exact: bool = True


def candidates(host: Host, modes: Sequence[HookMode]) -> list[LoadCandidate]:
    """Return every library of a machine, those that would be loaded first.

    ``modes`` are the hook modes that a trainer may use; none when nothing needs the library.
    """
    found: dict[Path, LoadCandidate] = {}
    for candidate in (*_preloaded(host), *_installed(host, modes)):
        found.setdefault(candidate.path, candidate)
    return sorted(found.values(), key=lambda candidate: not candidate.loads)


def _preloaded(host: Host) -> list[LoadCandidate]:
    """Return the libraries that the dynamic loader loads into every process, independent of the package."""
    sources = {
        "LD_PRELOAD": host.environment.get("LD_PRELOAD", ""),
        _PRELOAD_FILE: host.read(_PRELOAD_FILE) or "",
    }
    return [
        LoadCandidate(host.path(entry), True, f"{source} names it: every process loads it, in any hook mode")
        for source, text in sources.items()
        for entry in re.split(r"[\s:]+", text)
        if PACKAGE in entry
    ]


def _installed(host: Host, modes: Sequence[HookMode]) -> list[LoadCandidate]:
    """Return the libraries next to each copy of the package; Python imports the first copy."""
    found: list[LoadCandidate] = []
    imported: Path | None = None
    for directory in import_path(host):
        files = files_in(directory)
        package = directory / PACKAGE
        if not (package / "__init__.py").is_file():
            found += _not_loaded(files, f"there is no package {PACKAGE} next to it")
        elif imported:
            found += _not_loaded(files, f"Python imports the package in {imported} first")
        else:
            imported = directory
            found += _chosen(package, files, modes, host)
    return found


def _not_loaded(files: list[Path], why: str) -> list[LoadCandidate]:
    return [LoadCandidate(file, False, why) for file in files]


def _chosen(package: Path, files: list[Path], modes: Sequence[HookMode], host: Host) -> list[LoadCandidate]:
    if not modes:
        return _not_loaded(files, "nothing here needs it")
    rules = [_loader_rule(package, mode, host) for mode in modes]
    found: dict[Path, LoadCandidate] = {}
    # The package searches its own directory and the parent directory.
    near = [file for file in files if file.parent in (package, package.parent)]
    for rule in rules:
        matching = [file for file in near if fnmatch(file.name, rule.pattern)]
        loads = not rule.exact or len(matching) == 1
        why = rule.why if loads else f"{rule.why}, but fails because there are {len(matching)} of them"
        found |= {file: LoadCandidate(file, loads, why) for file in matching}
    other = f"the package loads {' or '.join(rule.pattern for rule in rules)}"
    return [found.get(file) or LoadCandidate(file, False, other) for file in files]


def _loader_rule(package: Path, mode: HookMode, host: Host) -> _LoaderRule:
    """Return the loading rule of the installed package, from its source code."""
    stem = f"{PACKAGE}_hook_mode_{mode}"
    where = f"Python imports {package}, which in hook mode {mode} loads"
    if not (package / "utils.py").is_file():
        pattern = f"{PACKAGE}_cpp.*.so"
        return _LoaderRule(pattern, f"Python imports {package}, which preloads {pattern}")
    if "_cu{major}" not in _text(package / "utils.py"):
        return _LoaderRule(f"{stem}.*.so", f"{where} {stem}.*.so")
    major = _cuda_major(host)
    if major:
        return _LoaderRule(
            f"{stem}_cu{major}.*.so", f"{where} {stem}_cu{major}.*.so for torch's CUDA {major}"
        )
    pattern = f"{stem}_cu*.*.so"
    return _LoaderRule(
        pattern,
        f"{where} one of {pattern}, by the libcudart that it finds; torch states no CUDA version",
        False,
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
    """Return the directories that Python imports from: PYTHONPATH, then those of the interpreter."""
    # For the running machine, sys.path includes PYTHONPATH.
    given = "" if host.is_here else host.environment.get("PYTHONPATH", "")
    directories = [host.path(entry) for entry in given.split(":") if entry]
    return list(dict.fromkeys([*directories, *site_directories(host)]))
