"""Clear what a killed run has left on this machine: processes, scratch directory, files in /dev/shm.

A run cleans up after itself as long as its supervisor or its launcher lives. When both were killed, the next
command that starts, lists, stops or removes runs does it. Only what is proven to be of this user's dead run
is touched: a process has this user's id and the run's scratch directory in its environment, a scratch
directory has a free lock and a marker of this machine (see ``scratch_directory``), and a file in /dev/shm was
recorded there with its inode.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from vime_runtime.spec.errors import CheckFailed
from vime_runtime.spec.process_roles import DRIVER

from vimectl.doctor.facts.processes import read_run_processes, read_scratch_directories
from vimectl.runs import log_files
from vimectl.runs.run_directory import RunDirectory
from vimectl.runs.supervised_command import KILL_TIMEOUT
from vimectl.util.host import Host
from vimectl.util.scratch_directory import ScratchDirectory, read_scratch_directory, remove_ended
from vimectl.util.units import size

# Seconds after the end of a run in which all of its processes exit. One that runs longer is a leftover.
LEFTOVER_TIMEOUT = 15.0

Report = Callable[[str], object]


def remove_files(report: Report) -> None:
    """Remove the scratch directories and files in /dev/shm of dead runs that no process is left of.

    Args:
        report: is called with a line for each directory.
    """
    host = Host()
    ended = [one for one in read_scratch_directories(host) if one.state == "ended"]
    used = {process.scratch for process in read_run_processes(host)} if ended else set()
    for one in ended:
        if one.path not in used:
            _remove(one, report)


def _remove(one: ScratchDirectory, report: Report) -> None:
    if one.run_dir and RunDirectory(Path(one.run_dir)).state == "lost":
        log_files.keep_ray_logs(Path(one.path), Path(one.run_dir))
    try:
        files = remove_ended(one)
    except FileNotFoundError:  # another command has removed it
        return
    except OSError as e:
        report(f"a killed run left {one.path}, which cannot be removed: {e.strerror}")
        return
    if files is not None:
        shm = f" and {len(files)} files in /dev/shm, {size(sum(f.size for f in files))}" if files else ""
        report(f"removed what a killed run left: {one.path}{shm}")


def end_processes(run: RunDirectory, report: Report) -> bool:
    """End the processes that are left of a run whose supervisor has exited. Returns True if there were any.

    The driver has received SIGTERM when its supervisor exited and may be saving the last finished step. The
    others exit with it, and soon if it was killed. What remains is killed.

    Raises:
        CheckFailed: a process cannot be killed.
    """
    left = _left_processes(run)
    if not left:
        return False
    report(f"ending the processes that {run.path.name} left: {_text(left)}")
    drivers = {entry["pid"] for entry in run.log.processes if entry["role"] == DRIVER}
    deadline = time.monotonic() + (LEFTOVER_TIMEOUT if drivers & left else KILL_TIMEOUT)
    while (left := _left_processes(run)) and time.monotonic() < deadline:
        time.sleep(0.1)
    deadline = time.monotonic() + KILL_TIMEOUT
    while left and time.monotonic() < deadline:
        _kill(left, run)
        time.sleep(0.1)
        left = _left_processes(run)
    if left:
        raise CheckFailed(
            f"processes of {run.path.name} cannot be killed: {_text(left)}",
            "they wait in the kernel, for a device or a disk: restart the machine if they do not exit",
        )
    return True


def _left_processes(run: RunDirectory) -> set[int]:
    """Return the ids of the processes that are proven to be of this run, which no process owns."""
    host, scratch = Host(), str(run.document.get("scratch_dir", ""))
    ended = not host.exists(scratch) or read_scratch_directory(host, scratch).state == "ended"
    if not ended or RunDirectory(run.path).state == "running":
        return set()
    return {process.pid for process in read_run_processes(host) if process.scratch == scratch}


def _kill(pids: set[int], run: RunDirectory) -> None:
    """Kill processes. A pidfd is opened before the last check: it never refers to a later process."""
    opened = {}
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            opened[pid] = os.pidfd_open(pid)
    proven = _left_processes(run)
    for pid, descriptor in opened.items():
        if pid in proven:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)


def _text(pids: set[int]) -> str:
    return " ".join(map(str, sorted(pids)))
