"""leftovers: what an earlier run left behind: processes, its private folder, files in /dev/shm."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vimectl.doctor.finding import Check, Outcome, Subject, judged, size, skipped
from vimectl.stacks.schema import Stack
from vimectl.util.host import Host

# The private folder of a run, as vimectl.runs.plan names it; the environment of all its processes has it.
_SCRATCH = re.compile(r"[^\0=:,\"\s]*/vime-[0-9a-f]{8}(?=[/\0\"\s]|$)")
# address perms offset dev inode path, proc_pid_maps(5)
_MAPPED = re.compile(r"^\S+ \S+ \S+ \S+ (\d+) +/dev/shm/", re.MULTILINE)


@dataclass(frozen=True)
class Process:
    """One process of the machine: its id, its command line and the private folders of runs it refers to."""

    pid: int
    argv: tuple[str, ...]
    scratch: frozenset[str]


def checks(stack: Stack) -> list[Check]:
    return [
        Check("leftovers.processes", "they hold the memory and the devices that a new run needs", _processes),
        Check(
            "leftovers.folders", "the folder of a run that was killed keeps Ray's logs and sockets", _folders
        ),
        Check("leftovers.shm", "files that nobody uses keep memory until they are deleted", _shm),
    ]


def _processes(subject: Subject) -> Outcome:
    everything = _of_runs(subject.host)
    live = {folder for process in everything if _is_live(process, subject.host) for folder in process.scratch}
    orphans = [process.pid for process in everything if not process.scratch & live]
    if orphans:
        pids = " ".join(map(str, orphans))
        return Outcome("fail", f"processes of a run whose supervisor is gone: {pids}", "none", f"kill {pids}")
    return judged(
        not live,
        f"a run is going on here, in {', '.join(sorted(live))}" if live else "none",
        "no other run",
        "wait for it, or `vimectl runs stop` it",
        "warn",
    )


def _folders(subject: Subject) -> Outcome:
    used = {folder for process in _of_runs(subject.host) for folder in process.scratch}
    places = dict.fromkeys(("/tmp", subject.host.environment.get("TMPDIR", "/tmp").rstrip("/")))
    unused = [
        f"{place}/{path.name}"
        for place in places
        for path in sorted(subject.host.path(place).glob("vime-*"))
        if _SCRATCH.fullmatch(f"{place}/{path.name}") and f"{place}/{path.name}" not in used
    ]
    return judged(not unused, ", ".join(unused) or "none", "none", f"rm -r {' '.join(unused)}", "warn")


def _shm(subject: Subject) -> Outcome:
    folder = subject.host.path("/dev/shm")
    if not folder.is_dir():
        return skipped("there is no /dev/shm")
    own = [path for path in sorted(folder.iterdir()) if path.is_file() and path.stat().st_uid == os.getuid()]
    used = _used_inodes(subject.host) if own else set()
    # Looked at again: what belonged to a process that has just ended is gone by now.
    unused = {path.name: path.stat() for path in own if path.is_file() and path.stat().st_ino not in used}
    total = sum(status.st_size for status in unused.values())
    return judged(
        not unused,
        f"{len(unused)} files that no process uses, {size(total)}"
        if unused
        else f"{len(own)} files of this user, all in use",
        "none unused",
        "rm " + " ".join(f"/dev/shm/{name}" for name in unused),
        "warn",
    )


def _of_runs(host: Host) -> list[Process]:
    found = []
    for folder in host.path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        argv = host.read(f"/proc/{pid}/cmdline") or ""
        scratch = frozenset(_SCRATCH.findall(f"{argv}\0{host.read(f'/proc/{pid}/environ') or ''}"))
        if scratch:
            found.append(Process(pid, tuple(argv.rstrip("\0").split("\0")), scratch))
    return found


def _is_live(process: Process, host: Host) -> bool:
    """Whether this is a runtime that somebody still waits for: one that nobody does has come to init."""
    if not any(word.partition(".")[0] == "vime_runtime" for word in process.argv):
        return _is_guest(process, host)
    status = host.read(f"/proc/{process.pid}/status") or ""
    return re.search(r"^PPid:\s+1$", status, re.MULTILINE) is None


def _is_guest(process: Process, host: Host) -> bool:
    """Whether a Ray cluster that is not the run's own started it: that ends it when its driver is gone.

    The driver, and the launcher, may be on another node.
    """
    parent = re.search(r"^PPid:\s+(\d+)$", host.read(f"/proc/{process.pid}/status") or "", re.MULTILINE)
    if parent is None:
        return False
    argv = host.read(f"/proc/{parent[1]}/cmdline") or ""
    environ = host.read(f"/proc/{parent[1]}/environ") or ""
    return Path(argv.split("\0")[0]).name == "raylet" and not _SCRATCH.search(f"{argv}\0{environ}")


def _used_inodes(host: Host) -> set[int]:
    """Inodes of the /dev/shm files that a process has mapped or open.

    Names do not do: glibc links a named semaphore to its name only after it has mapped it under another.
    """
    used: set[int] = set()
    for folder in host.path("/proc").glob("[0-9]*"):
        used |= {int(inode) for inode in _MAPPED.findall(host.read(f"/proc/{folder.name}/maps") or "")}
        used |= set(_opened(folder / "fd"))
    return used


def _opened(folder: Path) -> Iterator[int]:
    with suppress(OSError):  # it ended, or is not ours to read
        for entry in folder.iterdir():
            with suppress(FileNotFoundError):  # it was closed while we looked
                if os.readlink(entry).startswith("/dev/shm/"):
                    yield entry.stat().st_ino
