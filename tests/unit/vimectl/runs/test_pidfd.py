from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

import pytest

from vimectl.runs.pidfd import ProcessEnd
from vimectl.runs.process_identity import Identity, is_stopped


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


@pytest.mark.parametrize("collected", [False, True])
def test_an_end_is_noticed_and_explained(collected: bool) -> None:
    process = sleeper()
    end = ProcessEnd(process.pid)
    assert not end.has_come()
    process.kill()
    poll = select.poll()
    poll.register(end, select.POLLIN)
    assert poll.poll(5000)
    if collected:
        process.wait()
    assert end.has_come()
    # Linux before 6.15 forgets how it was once somebody has collected it.
    assert (end.signal(), end.words()) in (
        [(signal.SIGKILL, "was killed by SIGKILL")] + [(None, "died")] * collected
    )
    end.close()
    process.wait()


def test_an_exit_code_is_told() -> None:
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
    end = ProcessEnd(process.pid)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert end.words() == "ended with exit code 7 in the middle of the run"
    assert end.signal() is None
    end.close()
    process.wait()
    with pytest.raises(ProcessLookupError):
        ProcessEnd(process.pid)


def test_an_identity_is_one_process_and_no_other() -> None:
    process = sleeper()
    identity = Identity.of(process.pid)
    assert identity.lives
    assert identity.is_here
    other = Identity(os.getpid(), identity.started, identity.boot, identity.host)
    assert not other.lives
    assert not Identity(identity.pid, identity.started, "another boot", identity.host).lives
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)
    assert is_stopped(process.pid)
    assert identity.lives
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not identity.lives  # a zombie
    process.wait()
    with pytest.raises(ProcessLookupError):
        Identity.of(process.pid)
