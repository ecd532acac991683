"""The torch_memory_saver library: find it, digest it, read the ELF, judge it."""

from __future__ import annotations

from pathlib import Path

from vimectl.host import Host
from vimectl.memory_saver.builds import KnownBuild, known_builds
from vimectl.memory_saver.find import in_directory, libraries
from vimectl.memory_saver.judge import Build, judge
from vimectl.stack import Stack
from vimectl.stack.installed import site_directories

__all__ = ["Build", "KnownBuild", "judge_installed", "judge_path", "known_builds", "wanted_backend"]

_BACKENDS = {"npu": "ascend", "cuda": "cuda"}


def wanted_backend(stack: Stack | None) -> str | None:
    """Return what the library must be built for; None when the stack uses none (or there is no stack)."""
    return _BACKENDS.get(stack.stack.device) if stack else None


def judge_installed(host: Host, stack: Stack | None) -> list[Build]:
    """Judge the libraries that are installed on a machine, in import order."""
    machine = host.run(["uname", "-m"], 5).stdout.strip() or None
    files = [file for directory in site_directories(host) for file in in_directory(directory)]
    return [judge(file, wanted_backend(stack), machine) for file in files]


def judge_path(path: Path, host: Host, stack: Stack | None) -> list[Build]:
    """Judge the libraries at a path for a machine. Raises BadInput when there are none."""
    machine = host.run(["uname", "-m"], 5).stdout.strip() or None
    return [judge(file, wanted_backend(stack), machine) for file in libraries(path)]
