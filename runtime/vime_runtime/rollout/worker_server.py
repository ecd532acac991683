"""Fork the workers of an engine on a CPU from a process that has imported vLLM.

vLLM spawns these workers. Each of them would import vLLM again, which takes most of its start. The actor of
the engine cannot be forked, because it has threads of Ray that hold locks. So it starts the server process of
multiprocessing's "forkserver" method, which imports vLLM while the actor does, and forks for each worker.

A spawned worker reads its environment when it starts, and OpenMP its number of threads and their cores. The
server has done that already, so a forked worker gets these from the actor. vLLM also preloads torch's OpenMP
library, because two such libraries would each bind threads to cores. Here no library does.
"""

from __future__ import annotations

import os
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess


def start() -> None:
    """Start the server unless it runs. It imports vLLM in the background, and exits with this process."""
    forkserver.set_forkserver_preload(["vime_runtime.rollout.worker_imports"])
    forkserver.ensure_running()


def context() -> WorkerContext:
    """Return what vLLM's executor starts its workers with, in place of its ``get_mp_context``."""
    start()
    return WorkerContext()


class WorkerProcess(ForkServerProcess):
    """A forked process with the environment and the cores of a spawned one."""

    def start(self) -> None:
        """Start the process with the environment that this one has now."""
        self._environment = dict(os.environ)
        super().start()

    def run(self) -> None:
        """Take over the environment, then run the target."""
        for name in os.environ.keys() - self._environment.keys():
            del os.environ[name]
        os.environ.update(self._environment)
        import torch

        # vLLM sets both for each worker before it starts the process.
        if cores := os.environ.get("GOMP_CPU_AFFINITY"):
            os.sched_setaffinity(0, map(int, cores.split()))
        if threads := os.environ.get("OMP_NUM_THREADS"):
            torch.set_num_threads(int(threads))
        super().run()


class WorkerContext(ForkServerContext):
    """The "forkserver" method with ``WorkerProcess``."""

    Process = WorkerProcess
