"""leftovers: processes, scratch directories and shared memory that an earlier run left behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vimectl.doctor.check import CheckList, CheckResult, warn_unless
from vimectl.doctor.facts import Facts, Unavailable
from vimectl.doctor.facts.processes import SCRATCH, ProcessFacts, read_processes
from vimectl.util import shared_memory
from vimectl.util.units import size

CHECKS = CheckList()


def _is_live(process: ProcessFacts, by_pid: Mapping[int, ProcessFacts]) -> bool:
    """Return True for a runtime whose launcher still exists: init adopts a process whose parent has exited.

    A process that a raylet of another cluster started counts too: that cluster ends it when its driver exits.
    The driver, and the launcher, may be on another node.
    """
    if any(word.partition(".")[0] == "vime_runtime" for word in process.argv):
        return process.parent != 1
    parent = by_pid.get(process.parent) if process.parent else None
    return parent is not None and parent.program == "raylet" and not parent.scratch


def live_scratch(processes: Sequence[ProcessFacts]) -> set[str]:
    """Return the scratch directories of the runs that are still active."""
    by_pid = {process.pid: process for process in processes}
    return {directory for process in processes if _is_live(process, by_pid) for directory in process.scratch}


@CHECKS.add("leftovers.processes")
def processes(facts: Facts) -> CheckResult:
    """Processes of an earlier run hold the memory and the devices that a new run needs."""
    found = facts.read(read_processes)
    live = live_scratch(found)
    orphans = [process.pid for process in found if process.scratch and not process.scratch & live]
    if orphans:
        pids = " ".join(map(str, orphans))
        text = f"processes of a run whose supervisor has exited: {pids}"
        return CheckResult("fail", text, "none", f"kill {pids}")
    return warn_unless(
        not live,
        f"a run is active here, in {', '.join(sorted(live))}" if live else "none",
        "no other run",
        "wait for it, or `vimectl runs stop` it",
    )


@CHECKS.add("leftovers.folders")
def scratch_directories(facts: Facts) -> CheckResult:
    """The scratch directory of a run that was killed has Ray's logs and sockets."""
    used = {directory for process in facts.read(read_processes) for directory in process.scratch}
    places = dict.fromkeys(("/tmp", facts.environment.get("TMPDIR", "/tmp").rstrip("/")))
    paths = [f"{place}/{name}" for place in places for name in facts.names(place)]
    unused = [path for path in paths if SCRATCH.fullmatch(path) and path not in used]
    return warn_unless(not unused, ", ".join(unused) or "none", "none", f"rm -r {' '.join(unused)}")


@CHECKS.add("leftovers.shm")
def shared_memory_files(facts: Facts) -> CheckResult:
    """Shared memory files that no process uses keep their memory until they are deleted."""
    if facts.missing([shared_memory.SHM]):
        raise Unavailable(f"there is no {shared_memory.SHM}")
    own, unused = facts.read(shared_memory.own_files), facts.read(shared_memory.unused_files).values()
    total = size(sum(file.size for file in unused))
    return warn_unless(
        not unused,
        f"{len(unused)} files that no process uses, {total}"
        if unused
        else f"{len(own)} files of this user, all in use",
        "none unused",
        "rm " + " ".join(file.path for file in unused),
    )
