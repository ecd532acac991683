"""The vLLM plugin of this package, its ``vllm.general_plugins`` entry point."""

from __future__ import annotations

import secrets
import tempfile
from functools import cache, partial
from typing import Any

from vime_runtime import gc_pause, process_environment

# The name of CpuSleep among vLLM's sleep mode backends.
SLEEP_BACKEND = "vime-cpu"
# Milliseconds after which an engine process checks for a message again, in case it missed being woken.
RECHECK_MS = 5


def _file_init_method(ip: str, port: int) -> str:
    """Return the ``init_method`` of an engine's ranks: a new file in the run's private folder."""
    return f"file://{tempfile.gettempdir()}/engine-ranks-{secrets.token_hex(4)}"


@cache  # vLLM may call a plugin more than once in a process, and refuses to register a name again
def register() -> None:
    """Prepare a process of an engine; vLLM calls this in every one.

    Give a worker its own log and check its environment. Let the ranks meet in a file, and refuse objects from
    other processes. On a CPU, register the sleep mode and the norms.
    """
    gc_pause.resume_gc()  # vLLM's own imports are done by now
    process_environment.prepare_worker()
    from vllm.distributed.device_communicators import shm_broadcast
    from vllm.platforms import current_platform
    from vllm.v1.executor import multiproc_executor, uniproc_executor

    from vime_runtime.rollout import worker_server
    from vime_runtime.safe_unpickling import restrict_process_groups

    restrict_process_groups()
    executors: tuple[Any, ...] = (multiproc_executor, uniproc_executor)
    for executor in executors:
        # Before 0.32 the ranks of vLLM meet at a server of torch's, which listens on all interfaces.
        executor.get_distributed_init_method = _file_init_method
    if current_platform.is_cpu():
        multi: Any = multiproc_executor
        multi.get_mp_context = worker_server.context
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
