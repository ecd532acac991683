"""Find the torch_memory_saver libraries of a machine, and which of them the processes of a job would load.

The rule of the package changed between releases and is recognized by its source code:

- 0.0.8 (CUDA): ``LD_PRELOAD`` alone, filled from ``torch_memory_saver_cpp.*.so``;
- 0.0.9, and the builds for Ascend: ``torch_memory_saver_hook_mode_<mode>.*.so``, exactly one;
- from 0.0.9.post1 on: the same with ``_cu<major>``, by the CUDA version of torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

from vimectl.stacks.installed import site_directories
from vimectl.util.host import Host

HookMode = Literal["torch", "preload"]

PACKAGE = "torch_memory_saver"
# The TMS_HOOK_MODE that `vimectl run` sets for the trainer; a test compares it with recipes/environment.toml.
HOOK_MODES: dict[str, HookMode] = {"npu": "torch"}

# A library that exists or that a setting names, whether it would be loaded, and the reason.
Candidate: TypeAlias = tuple[str, bool, str]

_PRELOAD_FILE = "/etc/ld.so.preload"
_CUDA_OF_TORCH = r"^cuda\b.*=\s*'(\d+)\."


def candidates(host: Host, modes: Sequence[HookMode]) -> list[Candidate]:
    """Return every library of a machine, those that would be loaded first.

    ``modes`` are the hook modes that a trainer may use; none when nothing needs the library.
    """
    found: dict[str, Candidate] = {}
    for candidate in (*_preloaded(host), *_installed(host, modes)):
        found.setdefault(candidate[0], candidate)
    return sorted(found.values(), key=lambda candidate: not candidate[1])


def files_in(directory: str, host: Host) -> list[str]:
    """Return the libraries of the package in (or called) ``directory``: next to the package and in it."""
    parent = directory.removesuffix(f"/{PACKAGE}")
    paths = [f"{folder}/{name}" for folder in (parent, f"{parent}/{PACKAGE}") for name in host.names(folder)]
    return [path for path in paths if _matches(path, f"{PACKAGE}*.so")]


def _matches(path: str, pattern: str) -> bool:
    return fnmatchcase(path.rpartition("/")[2], pattern)


def _preloaded(host: Host) -> Iterator[Candidate]:
    """Yield the libraries that the dynamic loader loads into every process, independent of the package."""
    variable, file = host.environment.get("LD_PRELOAD", ""), host.read(_PRELOAD_FILE) or ""
    for source, text in (("LD_PRELOAD", variable), (_PRELOAD_FILE, file)):
        for entry in re.split(r"[\s:]+", text):
            if PACKAGE in entry:
                yield entry, True, f"{source} names it: every process loads it, in any hook mode"


def _installed(host: Host, modes: Sequence[HookMode]) -> Iterator[Candidate]:
    """Yield the libraries next to each copy of the package; Python imports the first copy."""
    imported, directories = "", site_directories(host)
    for directory in directories:
        files, package = files_in(directory, host), f"{directory}/{PACKAGE}"
        if not host.is_file(f"{package}/__init__.py"):
            why = f"there is no package {PACKAGE} next to it"
        elif imported:
            why = f"Python imports the package in {imported} first"
        else:
            imported = directory
            patterns = _patterns(package, modes, directories, host)
            for pattern in patterns:
                matching = [file for file in files if _matches(file, pattern)]
                # If torch states no CUDA version, the libcudart that the package finds decides between them.
                loads = len(matching) == 1 or "_cu*" in pattern
                why = f"Python imports {package}, which loads {pattern}"
                why += "" if loads else f", but fails because there are {len(matching)} of them"
                yield from ((file, loads, why) for file in matching)
            why = f"the package loads {' or '.join(patterns)}" if patterns else "nothing here needs it"
        yield from ((file, False, why) for file in files)


def _patterns(package: str, modes: Sequence[HookMode], directories: list[str], host: Host) -> list[str]:
    """Return the file name patterns of the libraries that the package loads, from its source code."""
    utils, variant = f"{package}/utils.py", ""
    if not host.is_file(utils):
        return [f"{PACKAGE}_cpp.*.so"] if modes else []
    if host.search(utils, r"_cu\{major\}"):
        torch = (f"{directory}/torch/version.py" for directory in directories)
        version = host.search(next(filter(host.is_file, torch), ""), _CUDA_OF_TORCH)
        variant = f"_cu{version[1] if version else '*'}"
    return [f"{PACKAGE}_hook_mode_{mode}{variant}.*.so" for mode in modes]
