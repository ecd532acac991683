"""leftovers: processes, scratch directories and shared memory that a killed run left behind.

Only what provably belongs to such a run is named for removal: its scratch directory has the marker of
vimectl, belongs to this user, and has no lock, which the run's supervisor holds as long as it lives.
"""

from __future__ import annotations

from shlex import join

from vimectl.doctor.check import CheckList, CheckResult, listed, warn_unless
from vimectl.doctor.facts import Facts, Unavailable
from vimectl.doctor.facts.processes import (
    ProcessFacts,
    read_processes,
    read_run_processes,
    read_scratch_directories,
)
from vimectl.util import shared_memory
from vimectl.util.scratch_directory import OWNER, SHM_LOG, ScratchDirectory, ScratchState
from vimectl.util.units import size

CHECKS = CheckList(source="vimectl/util/scratch_directory.py: the lock and the marker of a run")
_SCRATCH_READS = (
    "$TMPDIR",
    "*",  # /tmp and TMPDIR
    f"*/{OWNER}",
    f"*/{SHM_LOG}",
    "/proc",
    "/proc/*/cmdline",
    "/proc/*/environ",
    "/proc/*/status",
    "/proc/sys/kernel/random/boot_id",
    "/proc/sys/kernel/hostname",
)


def _directories(facts: Facts, state: ScratchState) -> dict[str, ScratchDirectory]:
    return {one.path: one for one in facts.read(read_scratch_directories) if one.state == state}


def _left_processes(facts: Facts) -> list[ProcessFacts]:
    """Return this user's processes that the runs have left behind whose supervisor has exited."""
    ended = _directories(facts, "ended")
    return [process for process in facts.read(read_run_processes) if process.scratch in ended]


@CHECKS.add("leftovers.processes", reads=_SCRATCH_READS)
def processes(facts: Facts) -> CheckResult:
    """Processes of an earlier run hold the memory and the devices that a new run needs."""
    left = _left_processes(facts)
    if left:
        pids = " ".join(str(process.pid) for process in left)
        scratch = listed(sorted({process.scratch or "" for process in left}))
        text = f"{pids}: processes of a run whose supervisor has exited ({scratch})"
        # The driver saves the last finished step when it gets SIGTERM.
        return CheckResult("fail", text, "none", f"kill {pids}  (with -9 those that remain after 15 s)")
    active = _directories(facts, "active")
    unknown = [
        str(process.pid)
        for process in facts.read(read_processes)
        if process.scratch and process.scratch not in active
    ]
    if active:
        places = [one.run_dir or one.path for one in active.values()]
        stop = [join(["vimectl", "runs", "stop", one.run_dir]) for one in active.values() if one.run_dir]
        fix = " && ".join(stop) + "  (or wait for it)" if stop else "wait for it"
        return CheckResult("warn", f"a run is active here: {listed(places)}", "no other run", fix)
    more = f"; of runs that may be active: {listed(unknown)}" if unknown else ""
    return CheckResult("pass", f"none{more}", "no other run")


@CHECKS.add("leftovers.folders", reads=_SCRATCH_READS)
def scratch_directories(facts: Facts) -> CheckResult:
    """The scratch directory of a run that was killed has Ray's logs and sockets."""
    used = {process.scratch for process in facts.read(read_run_processes)}
    unused = [path for path in _directories(facts, "ended") if path not in used]
    unknown = list(_directories(facts, "unknown"))
    more = f"; of runs that may be active: {listed(unknown)}" if unknown else ""
    return warn_unless(not unused, listed(unused) or f"none{more}", "none", join(["rm", "-r", *unused]))


@CHECKS.add(
    "leftovers.shm",
    reads=(*_SCRATCH_READS, "/dev/shm", "/proc/*/maps"),  # nosec B108 # listed
    after=("leftovers.processes",),
)
def shared_memory_files(facts: Facts) -> CheckResult:
    """Shared memory files that no process uses keep their memory until they are deleted."""
    if facts.missing([shared_memory.SHM]):
        raise Unavailable(f"there is no {shared_memory.SHM}")
    unused = facts.read(shared_memory.unused_files)
    # Inode and path: a later file may have one of them, not both.
    recorded = {(file, inode) for one in _directories(facts, "ended").values() for file, inode in one.shm}
    left = [file for inode, file in unused.items() if (file.path, inode) in recorded]
    if left:
        total = size(sum(file.size for file in left))
        text = f"{len(left)} files of a run whose supervisor has exited, {total}"
        return CheckResult("warn", text, "none", join(["rm", *(file.path for file in left)]))
    own = facts.read(shared_memory.own_files)
    total = size(sum(file.size for file in unused.values()))
    text = f"{len(own)} files of this user"
    if unused:
        text += f"; {len(unused)} of them, {total}, are of no known run, and no process here uses them"
    return CheckResult("pass", text, "none of a run that has ended")
