from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

import pytest

from vimectl.runs.process_watch import ProcessIdentity, WatchedProcess, process_state


def start(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code])


def sleeper() -> subprocess.Popen[bytes]:
    return start("import time; time.sleep(60)")


def watch(process: subprocess.Popen[bytes]) -> WatchedProcess:
    return WatchedProcess({"role": "engine", "rank": 2, "pid": process.pid})


@pytest.mark.parametrize("collected", [False, True])
def test_exit_is_noticed_and_explained(collected: bool) -> None:
    process = sleeper()
    watched = watch(process)
    assert not watched.has_exited
    process.kill()
    poll = select.poll()
    poll.register(watched, select.POLLIN)
    assert poll.poll(5000)
    if collected:
        process.wait()
    assert watched.has_exited
    # Linux before 6.15 does not know the exit code after the process was collected.
    assert watched.exit_code == -signal.SIGKILL or (collected and watched.exit_code is None)
    assert watched.was_killed or collected
    watched.close()
    process.wait()


def test_exit_code_is_reported() -> None:
    process = start("raise SystemExit(7)")
    watched = watch(process)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert watched.exit_code == 7
    assert not watched.was_killed
    watched.close()
    process.wait()
    with pytest.raises(ProcessLookupError):
        watch(process)


def test_identity_is_of_one_process() -> None:
    process = sleeper()
    identity = ProcessIdentity.of(process.pid)
    assert identity.is_alive
    assert identity.is_local
    assert not ProcessIdentity(os.getpid(), identity.started, identity.boot, identity.host).is_alive
    assert not ProcessIdentity(identity.pid, identity.started, "another boot", identity.host).is_alive
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)
    assert process_state(process.pid) == "stopped"
    assert identity.is_alive
    identity.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not identity.is_alive  # a zombie
    process.wait()
    with pytest.raises(ProcessLookupError):
        ProcessIdentity.of(process.pid)
