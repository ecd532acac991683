"""The vLLM plugin of this package, its ``vllm.general_plugins`` entry point."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

from vime_runtime import gc_pause, process_environment

# The name of CpuSleep among vLLM's sleep mode backends.
SLEEP_BACKEND = "vime-cpu"
# Milliseconds after which an engine process checks for a message again, in case it missed being woken.
RECHECK_MS = 5


@cache  # vLLM may call a plugin more than once in a process, and refuses to register a name again
def register() -> None:
    """Prepare a process of an engine; vLLM calls this in every one.

    Give a worker its own log and check its environment. On a CPU, register the sleep mode and the norms.
    """
    gc_pause.resume_gc()  # vLLM's own imports are done by now
    process_environment.prepare_worker()
    from vllm.distributed.device_communicators import shm_broadcast
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        from vllm.device_allocator.sleep_mode_backend import SleepModeBackendFactory

        SleepModeBackendFactory.register_backend(SLEEP_BACKEND, "vime_runtime.rollout.cpu_sleep", "CpuSleep")
        from vime_runtime.rollout import cpu_norms

        cpu_norms.register()
        # By default an engine process that waits for another one spins for a second before it sleeps, on
        # cores that the other process or the trainer needs. Without spinning it can miss being woken until it
        # checks again, by default after 5 s.
        broadcast: Any = shm_broadcast
        broadcast.SpinCondition = partial(broadcast.SpinCondition, busy_loop_s=0)
        broadcast.SHM_READER_RECHECK_INTERVAL_MS = RECHECK_MS
