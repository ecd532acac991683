"""What this package adds to vLLM, registered from its ``vllm.general_plugins`` entry point.

vLLM calls ``register`` in every process that has to do with an engine.
"""

from __future__ import annotations

from functools import cache

from vime_runtime.watch import process_log

# The names by which an engine asks for them.
SLEEP_BACKEND = "vime-host"
WEIGHT_TRANSFER = "vime-buckets"


@cache  # vLLM may call a plugin more than once in a process, and refuses to register a name again
def register() -> None:
    """Give a worker its own log; make the host's sleep mode and the bucket loader known to vLLM.

    Both are imported when used.
    """
    process_log.take_over_worker()
    from vllm.device_allocator.sleep_mode_backend import SleepModeBackendFactory
    from vllm.distributed.weight_transfer import WeightTransferEngineFactory

    SleepModeBackendFactory.register_backend(SLEEP_BACKEND, "vime_runtime.rollout.host_sleep", "HostSleep")
    WeightTransferEngineFactory.register_engine(WEIGHT_TRANSFER, "vime_runtime.sync.loader", "BucketLoader")
