"""The plugin's changes in vLLM's processes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Waits half a second for a message, and then for a hundred that come one by one. Prints how often the reader
# polled in the half second, and how many of the others arrived in order.
WAIT = """
import gc, threading, time
from vime_runtime.rollout.plugin import register
gc.disable()  # as in a worker that was spawned
register()
assert gc.isenabled()
from vllm.distributed.device_communicators import shm_broadcast
from vllm.distributed.device_communicators.shm_broadcast import MessageQueue
polls = 0
sched_yield = shm_broadcast.sched_yield
def count_polls():
    global polls
    polls += 1
    sched_yield()
shm_broadcast.sched_yield = count_polls
writer = MessageQueue(1, 1)
reader = MessageQueue.create_from_handle(writer.export_handle(), 0)
ready = threading.Thread(target=writer.wait_until_ready)
ready.start()
reader.wait_until_ready()
ready.join()
writer.enqueue("first")
assert reader.dequeue() == "first"
threading.Timer(0.5, writer.enqueue, ["second"]).start()
polls = 0
assert reader.dequeue() == "second"
waiting = polls

def send():
    for number in range(100):
        time.sleep(0.003)
        writer.enqueue(number)

threading.Thread(target=send).start()
print(waiting, sum(reader.dequeue() == number for number in range(100)))
"""


@pytest.mark.slow
def test_waiting_for_another_process_takes_no_cpu_time() -> None:
    environment = os.environ | {"VLLM_PLUGINS": "vime_runtime", "VLLM_HOST_IP": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", WAIT], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    polls, arrived = map(int, done.stdout.split())
    assert polls < 100  # in a busy loop it is some 100 000
    assert arrived == 100
