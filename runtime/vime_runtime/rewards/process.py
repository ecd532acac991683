"""``python -m vime_runtime.rewards.process FD FOLDER ISOLATED PARENT``: a reward process.

It has two parts. The *worker* runs the user's code, restricted by ``isolation``. The *guard*, its parent,
runs no code of the user: when the worker has exited, or on SIGTERM, it kills everything that the worker has
started, removes the temporary folder, and exits as the worker did. On SIGUSR1 the worker prints its stack
before that.

The worker talks JSON lines with the driver over the socket FD:

    driver: {"sets": {NAME: DataTable}}
    worker: {"ready": {NAME: {"form", "takes"}}, "possible": [...]}, or {"refused": {"message", "hint"}}
    driver: {"set", "problem": {...}, "responses": [{...}, ...], "indices": [...]}
    worker: {"index", "reward"}, or {"index", "error": {"message", "where", "traceback"}}, for each response
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import sys
import time

from vime_runtime.graceful_stop import signal_when_parent_exits
from vime_runtime.rewards import isolation

# Signals for the guard: end, and print the stack of the worker before that.
END, END_WITH_STACK = signal.SIGTERM, signal.SIGUSR1
_HANDLED = (END, END_WITH_STACK, signal.SIGCHLD)
# Seconds for the worker to print its stack, and for killed processes to exit.
_STACK_SECONDS = 0.2
_KILL_SECONDS = 5.0


def main(argv: list[str]) -> None:
    """Start the worker and guard it until it has ended."""
    fd, folder, isolated, parent = int(argv[1]), argv[2], argv[3] == "isolated", int(argv[4])
    signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")  # if memory is short, the kernel kills these processes first: proc_pid(5)
    in_namespaces = isolated and isolation.enter_namespaces()
    isolation.adopt_orphans()
    signal_when_parent_exits(END)
    if os.getppid() != parent:  # it exited before the signal was set
        _remove(folder)
        return
    worker = os.fork()
    if worker == 0:
        signal_when_parent_exits(signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
        possible = isolation.restrict(folder, in_namespaces) if isolated else []
        # Imported now, so that nothing but this module runs without the restrictions.
        from vime_runtime.rewards.serving import Worker

        Worker(fd).serve(possible)
        sys.exit()
    os.close(fd)
    status = _guard(worker)
    if not in_namespaces:  # those end with their first process, the worker
        _kill_descendants()
    _remove(folder)
    _exit_like(os.waitstatus_to_exitcode(status))


def _guard(worker: int) -> int:
    """Return the wait status of the worker once it has exited; end it if a signal says so."""
    while True:
        received = signal.sigwait(_HANDLED)
        if received == END_WITH_STACK:
            os.kill(worker, END_WITH_STACK)
            time.sleep(_STACK_SECONDS)
        if received != signal.SIGCHLD:
            os.kill(worker, signal.SIGKILL)
            return os.waitpid(worker, 0)[1]
        if (status := _reap().get(worker)) is not None:
            return status


def _reap() -> dict[int, int]:
    """Collect the children that have exited, adopted orphans too; return their wait statuses."""
    exited: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            exited[found[0]] = found[1]
    return exited


def _kill_descendants() -> None:
    """Kill what the worker has started: as a child subreaper this process is now its ancestor."""
    import psutil

    deadline = time.monotonic() + _KILL_SECONDS
    while (left := psutil.Process().children(recursive=True)) and time.monotonic() < deadline:
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        _reap()
        time.sleep(0.01)


def _remove(folder: str) -> None:
    """Remove the temporary folder, and directories in it without permissions."""
    for directory, names, _ in os.walk(folder):
        for path in (os.path.join(directory, name) for name in names):
            if not os.path.islink(path):
                os.chmod(path, 0o700)
    shutil.rmtree(folder, ignore_errors=True)


def _exit_like(code: int) -> None:
    """Exit with an exit code, or by a signal if it is negative."""
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    main(sys.argv)
