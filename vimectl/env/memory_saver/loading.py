"""Find the torch_memory_saver libraries of a machine, which of them the processes of a job would load, and why.

The rule of the package changed between releases and is recognized by its source code:

- 0.0.8 (CUDA): ``LD_PRELOAD`` alone, filled from ``torch_memory_saver_cpp.*.so``;
- 0.0.9, and the builds for Ascend: ``torch_memory_saver_hook_mode_<mode>.*.so``, exactly one;
- from 0.0.9.post1 on: the same with ``_cu<major>``, by the CUDA version of torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

from vimectl.stacks.installed import site_directories
from vimectl.util.host import Host

HookMode = Literal["torch", "preload"]

PACKAGE = "torch_memory_saver"
# The TMS_HOOK_MODE that `vimectl run` sets for the trainer; a test compares it with recipes/environment.toml.
HOOK_MODES: dict[str, HookMode] = {"npu": "torch"}

_PRELOAD_FILE = "/etc/ld.so.preload"
_CUDA_OF_TORCH = r"^cuda\b.*=\s*'(\d+)\."


class Candidate(NamedTuple):
    """A library that exists or that a setting names, whether it would be loaded, and the reason."""

    path: str
    loads: bool
    why: str


def candidates(host: Host, modes: Sequence[HookMode]) -> list[Candidate]:
    """Return every library of a machine, those that would be loaded first.

    ``modes`` are the hook modes that a trainer may use; none when nothing needs the library.
    """
    found: dict[str, Candidate] = {}
    for candidate in (*_preloaded(host), *_installed(host, modes)):
        found.setdefault(candidate.path, candidate)
    return sorted(found.values(), key=lambda candidate: not candidate.loads)


def files_in(directory: str, host: Host) -> list[str]:
    """Return the libraries of the package in (or called) ``directory``: next to the package and in it."""
    parent = directory.removesuffix(f"/{PACKAGE}")
    return [
        f"{folder}/{name}"
        for folder in (parent, f"{parent}/{PACKAGE}")
        for name in host.names(folder)
        if fnmatchcase(name, f"{PACKAGE}*.so")
    ]


def _preloaded(host: Host) -> Iterator[Candidate]:
    """Yield the libraries that the dynamic loader loads into every process, independent of the package."""
    sources = {
        "LD_PRELOAD": host.environment.get("LD_PRELOAD", ""),
        _PRELOAD_FILE: host.read(_PRELOAD_FILE) or "",
    }
    for source, text in sources.items():
        for entry in re.split(r"[\s:]+", text):
            if PACKAGE in entry:
                yield Candidate(entry, True, f"{source} names it: every process loads it, in any hook mode")


def _installed(host: Host, modes: Sequence[HookMode]) -> Iterator[Candidate]:
    """Yield the libraries next to each copy of the package; Python imports the first copy."""
    imported = ""
    directories = _import_path(host)
    for directory in directories:
        files = files_in(directory, host)
        package = f"{directory}/{PACKAGE}"
        if not host.is_file(f"{package}/__init__.py"):
            why = f"there is no package {PACKAGE} next to it"
        elif imported:
            why = f"Python imports the package in {imported} first"
        else:
            imported = directory
            rules = [_rule(package, mode, directories, host) for mode in modes]
            yield from _loaded(files, rules)
            why = f"the package loads {' or '.join(rule.pattern for rule in rules) or 'none of them here'}"
        yield from (Candidate(file, False, why) for file in files)


def _loaded(files: list[str], rules: Sequence[_Rule]) -> Iterator[Candidate]:
    for rule in rules:
        matching = [file for file in files if fnmatchcase(file.rpartition("/")[2], rule.pattern)]
        loads = rule.any_of or len(matching) == 1
        why = rule.why if loads else f"{rule.why}, but fails because there are {len(matching)} of them"
        yield from (Candidate(file, loads, why) for file in matching)


class _Rule(NamedTuple):
    """The file name pattern that the package loads, and the reason.

    The package fails unless one file matches, but with ``any_of`` which one it loads is not known.
    """

    pattern: str
    why: str
    any_of: bool = False


def _rule(package: str, mode: HookMode, directories: Sequence[str], host: Host) -> _Rule:
    """Return the loading rule of the imported package, from its source code."""
    stem = f"{PACKAGE}_hook_mode_{mode}"
    source = host.read(f"{package}/utils.py")
    if source is None:
        pattern = f"{PACKAGE}_cpp.*.so"
        return _Rule(pattern, f"Python imports {package}, which preloads {pattern}")
    why = f"Python imports {package}, which in hook mode {mode} loads"
    if "_cu{major}" not in source:
        return _Rule(f"{stem}.*.so", f"{why} {stem}.*.so")
    torch = (f"{directory}/torch/version.py" for directory in directories)
    version = host.search(next(filter(host.is_file, torch), ""), _CUDA_OF_TORCH)
    if version:
        pattern = f"{stem}_cu{version[1]}.*.so"
        return _Rule(pattern, f"{why} {pattern} for torch's CUDA {version[1]}")
    pattern = f"{stem}_cu*.*.so"
    why += f" one of {pattern}, by the libcudart that it finds; torch states no CUDA version"
    return _Rule(pattern, why, any_of=True)


def _import_path(host: Host) -> list[str]:
    """Return the directories that Python imports from: PYTHONPATH, then those of the interpreter."""
    # For the running machine, sys.path includes PYTHONPATH.
    given = "" if host.is_here else host.environment.get("PYTHONPATH", "")
    return list(dict.fromkeys([*filter(None, given.split(":")), *site_directories(host)]))
