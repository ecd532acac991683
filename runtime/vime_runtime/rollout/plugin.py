"""What this package adds to vLLM, registered from its ``vllm.general_plugins`` entry point.

vLLM calls ``register`` in every process that has to do with an engine.
"""

from __future__ import annotations

from functools import cache, partial

from vime_runtime.watch import process_log

# The names by which an engine asks for them.
SLEEP_BACKEND = "vime-host"
WEIGHT_TRANSFER = "vime-buckets"

# How long a message between engine processes may lie there unseen.
RECHECK_MS = 5


@cache  # vLLM may call a plugin more than once in a process, and refuses to register a name again
def register() -> None:
    """Give a worker its own log; make the host's sleep mode and the bucket loader known to vLLM.

    Both are imported when used.
    """
    process_log.take_over_worker()
    from vllm.device_allocator.sleep_mode_backend import SleepModeBackendFactory
    from vllm.distributed.device_communicators import shm_broadcast
    from vllm.distributed.weight_transfer import WeightTransferEngineFactory
    from vllm.platforms import current_platform

    SleepModeBackendFactory.register_backend(SLEEP_BACKEND, "vime_runtime.rollout.host_sleep", "HostSleep")
    WeightTransferEngineFactory.register_engine(WEIGHT_TRANSFER, "vime_runtime.sync.loader", "BucketLoader")
    if current_platform.is_cpu():
        # An engine process that waits for another would otherwise go round a loop for a whole second before
        # it sleeps, on the cores that the other one, or the trainer, computes with. A process that goes to
        # sleep at once can miss that it was woken, and looks again after a while: vLLM thinks of 5 s.
        shm_broadcast.SpinCondition = partial(shm_broadcast.SpinCondition, busy_loop_s=0)
        shm_broadcast.SHM_READER_RECHECK_INTERVAL_MS = RECHECK_MS
