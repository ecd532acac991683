"""What the plugin changes in vLLM's own processes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Waits half a second for a message soon after another one, and for a hundred that come one by one; prints
# the processor time of the first and the longest time a message of the others lay there.
WAIT = """
import gc, threading, time
from vime_runtime.rollout.plugin import register
gc.disable()  # as in a worker that was spawned
register()
assert gc.isenabled()
from vllm.distributed.device_communicators.shm_broadcast import MessageQueue
writer = MessageQueue(1, 1)
reader = MessageQueue.create_from_handle(writer.export_handle(), 0)
ready = threading.Thread(target=writer.wait_until_ready)
ready.start()
reader.wait_until_ready()
ready.join()
writer.enqueue("first")
assert reader.dequeue() == "first"
threading.Timer(0.5, writer.enqueue, ["second"]).start()
before = time.process_time()
assert reader.dequeue() == "second"
processor = time.process_time() - before

def send():
    for _ in range(100):
        time.sleep(0.003)
        writer.enqueue(time.monotonic())

threading.Thread(target=send).start()
print(processor, max(time.monotonic() - reader.dequeue() for _ in range(100)))
"""


@pytest.mark.slow
def test_a_process_that_waits_for_another_leaves_it_the_core() -> None:
    environment = os.environ | {"VLLM_PLUGINS": "vime_runtime", "VLLM_HOST_IP": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", WAIT], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    processor, longest = map(float, done.stdout.split())
    assert processor <= 0.1
    assert longest <= 2  # vLLM's own limit for a message that nobody was told of is 5 s
