from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
from vime_runtime.memory.process_tree import own_pids, wait_or_kill

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
)


def test_a_process_that_does_not_exit_is_killed() -> None:
    child = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE)
    assert child.stdout
    child.stdout.readline()
    assert own_pids()[0] == os.getpid()
    assert child.pid in own_pids()
    began = time.monotonic()
    wait_or_kill([psutil.Process(child.pid)], seconds=0.3)  # a zombie afterwards: this test has not waited
    assert time.monotonic() - began >= 0.3  # killed after its time; a busy machine only adds to it
    assert child.wait(60) == -9


def test_an_exited_process_is_not_waited_for() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    process = psutil.Process(child.pid)
    child.wait()
    wait_or_kill([process], seconds=60)
