"""The torch_memory_saver library: find it, digest it, read the ELF, judge it, record it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from vimectl.env.memory_saver.builds import MACHINE_FILE, KnownBuild, known_builds, machine_builds, own_file
from vimectl.env.memory_saver.find import libraries, read
from vimectl.env.memory_saver.judge import Build, judge
from vimectl.env.memory_saver.loading import HOOK_MODES, HookMode, candidates
from vimectl.env.memory_saver.record import record
from vimectl.stacks.schema import Stack
from vimectl.util.host import Host

__all__ = [
    "MACHINE_FILE",
    "Build",
    "KnownBuild",
    "good",
    "judge_installed",
    "judge_path",
    "known_builds",
    "library",
    "own_file",
    "record",
    "wanted_backend",
]

_BACKENDS = {"npu": "ascend", "cuda": "cuda"}


def wanted_backend(stack: Stack | None) -> str | None:
    """Return what the library must be built for; None when the stack uses none (or there is no stack)."""
    return _BACKENDS.get(stack.stack.device) if stack else None


def judge_installed(host: Host, stack: Stack | None) -> list[Build]:
    """Judge every library that is installed on a machine, those that a job would load first.

    Each says whether it would be loaded and why. A library that cannot be read is judged ``unknown``.
    """
    machine, also = _machine(host), () if host.is_here else machine_builds(host)
    return [
        replace(
            judge(read(found.path), wanted_backend(stack), machine, also), loads=found.loads, why=found.why
        )
        for found in candidates(host, _hook_modes(host, stack))
    ]


def library(host: Host, mode: HookMode) -> Path | None:
    """The library that a trainer on this machine uses in a hook mode; None when there is none."""
    return next((found.path for found in candidates(host, [mode]) if found.loads), None)


def judge_path(path: Path, host: Host, stack: Stack | None) -> list[Build]:
    """Judge the libraries at a path for a machine. Raises UsageError when there are none."""
    machine = _machine(host)
    return [judge(file, wanted_backend(stack), machine) for file in libraries(path)]


def good(builds: Sequence[Build], stack: Stack | None) -> bool:
    """Whether a job would load what it needs and nothing else: each library that it loads is known-good.

    What lies about and is not loaded does no harm. Of libraries given by path each counts.
    """
    loaded = [build for build in builds if build.loads is not False]
    needed = wanted_backend(stack) is not None
    return (bool(loaded) or not needed) and all(build.verdict == "known-good" for build in loaded)


def _hook_modes(host: Host, stack: Stack | None) -> list[HookMode]:
    """The hook modes that a trainer on this machine may use: that of the stack, or what is asked for."""
    if stack:
        mode = HOOK_MODES.get(stack.stack.device)
        return [mode] if mode else []
    given = host.environment.get("TMS_HOOK_MODE")
    return [mode for mode in get_args(HookMode) if given in (None, mode)]


def _machine(host: Host) -> str | None:
    return host.run(["uname", "-m"], 5).stdout.strip() or None
