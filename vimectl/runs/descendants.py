"""The descendants of this process: keep them, measure them, kill them, remove their files in /dev/shm.

Processes are found by descent only, never by name. A process that detaches itself (double fork, setsid, its
parent's death) would otherwise move to PID 1 and be lost: as a *child subreaper* (prctl(2)) this process
becomes its parent instead. A process that calls ``kill_all`` must therefore have no other children.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from vimectl.runs.process_watch import process_state
from vimectl.util import shared_memory
from vimectl.util.host import Host

# linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent exits. Raises OSError if the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def terminate_with_parent() -> Callable[[], None]:
    """Return a ``preexec_fn`` for a child that gets SIGTERM when this process exits, even if it is killed."""
    libc, parent = ctypes.CDLL(None), os.getpid()

    def set_signal() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it was killed before the call
            os._exit(128 + signal.SIGTERM)

    return set_signal


def running() -> list[psutil.Process]:
    """Return all descendants that run, without zombies."""
    return [process for process in psutil.Process().children(recursive=True) if process_state(process.pid)]


def reap(except_pid: int) -> None:
    """Collect the exit status of adopted orphans. ``except_pid`` is a child that is waited for elsewhere."""
    for child in psutil.Process().children():
        if child.pid != except_pid and not process_state(child.pid):
            with contextlib.suppress(ChildProcessError):  # it was collected since it was listed
                os.waitpid(child.pid, os.WNOHANG)


def kill_all(except_pid: int, timeout: float) -> list[int]:
    """Kill all descendants, including those that are started in the meantime, until none is left.

    Args:
        except_pid: a child that is killed too, but whose exit status is collected elsewhere.
        timeout: seconds.

    Returns:
        the ids of the processes that are left: they sleep in the kernel and cannot be killed.
    """
    deadline = time.monotonic() + timeout
    while (processes := running()) and time.monotonic() < deadline:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        reap(except_pid)
        time.sleep(0.02)
    reap(except_pid)
    return [process.pid for process in processes]


def resident_bytes() -> int:
    """Return the memory of this process and all descendants in bytes, counting a shared page once."""
    total = 0
    for process in [psutil.Process(), *running()]:
        with contextlib.suppress(psutil.Error):  # it has exited since it was listed
            total += process.memory_full_info().pss
    return total


class SharedMemoryWatch:
    """Record which files in /dev/shm belong to descendants, to remove them after a killed process.

    The name of a file does not tell which process created it; the mappings and open files of a running
    process do. Files that existed before the watch began are never recorded.
    """

    def __init__(self, log: Path | None = None) -> None:
        """``log`` is a file to which each recorded file is appended, in case this process is killed."""
        self._log = log
        self._host = Host()
        self._before = set(shared_memory.own_files(self._host))
        self._used: set[int] = set()  # inodes
        self._examined: set[int] = set()

    def update(self, all_files: bool = False) -> None:
        """Record the files that descendants use now.

        Reading the mappings of all processes takes tens of milliseconds. So nothing is done if every new
        file was examined before, unless ``all_files``.
        """
        files = shared_memory.own_files(self._host)
        new = set(files) - self._before - self._used
        if not new <= (set() if all_files else self._examined):
            used: set[int] = set()
            for process in running():
                used |= shared_memory.used_inodes(self._host, process.pid) & new
            self._used |= used
            self._examined |= new
            self._append_to_log({inode: files[inode].path for inode in used})

    def _append_to_log(self, paths: dict[int, str]) -> None:
        if self._log is None:
            return
        # On a full disk a run continues: the doctor does not name files that are not logged.
        with contextlib.suppress(OSError), self._log.open("a", encoding="utf-8") as log:
            log.writelines(f"{inode} {path}\n" for inode, path in paths.items())

    def remove_unused(self) -> None:
        """Delete the recorded files that no process uses any more."""
        unused = shared_memory.unused_files(self._host) if self._used else {}
        for inode in self._used & unused.keys():
            Path(unused[inode].path).unlink(missing_ok=True)
