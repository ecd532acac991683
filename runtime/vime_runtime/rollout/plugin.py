"""What this package adds to vLLM, registered from its ``vllm.general_plugins`` entry point.

vLLM calls ``register`` in every process that has to do with an engine.
"""

from __future__ import annotations

from functools import cache, partial

from vime_runtime import gc_pause, process_environment
from vime_runtime.logging import process_log

# The name by which an engine asks for it.
SLEEP_BACKEND = "vime-host"

# How long a message between engine processes may lie there unseen.
RECHECK_MS = 5


@cache  # vLLM may call a plugin more than once in a process, and refuses to register a name again
def register() -> None:
    """Give a worker its own log, look at its environment, and make what is ours known to vLLM.

    That is the sync, the fixes for NPUs, and the host's sleep mode and norms. What vLLM makes by name is
    imported when used.
    """
    gc_pause.resume_gc()  # vLLM's own imports are done by now
    process_log.redirect_worker_output()
    process_environment.require_in_worker()
    from vllm.distributed.device_communicators import shm_broadcast
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        from vllm.device_allocator.sleep_mode_backend import SleepModeBackendFactory

        SleepModeBackendFactory.register_backend(SLEEP_BACKEND, "vime_runtime.rollout.cpu_sleep", "HostSleep")
        from vime_runtime.rollout import cpu_norms

        cpu_norms.register()
        # An engine process that waits for another would otherwise go round a loop for a whole second before
        # it sleeps, on the cores that the other one, or the trainer, computes with. A process that goes to
        # sleep at once can miss that it was woken, and looks again after a while: vLLM thinks of 5 s.
        shm_broadcast.SpinCondition = partial(shm_broadcast.SpinCondition, busy_loop_s=0)
        shm_broadcast.SHM_READER_RECHECK_INTERVAL_MS = RECHECK_MS
