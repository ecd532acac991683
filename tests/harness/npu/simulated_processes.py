"""Processes on a simulated machine that run the functions a test sends them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Listener
from pathlib import Path
from typing import Any

import cloudpickle

from harness import script
from harness.npu.simulated_machine import SimulatedMachine
from harness.ports import free_port

WORKER = script("runtime.rank_worker")
# Environment of every process of a colocated run.
COLOCATED = {
    "PYTORCH_NPU_ALLOC_CONF": "expandable_segments:False",
    "CUDA_DEVICE_MAX_CONNECTIONS": "1",
    "GLOO_SOCKET_IFNAME": "lo",
    "OMP_NUM_THREADS": "1",
}


class Process:
    """A child process; ``chips`` is its ASCEND_RT_VISIBLE_DEVICES."""

    def __init__(self, machine: SimulatedMachine, directory: Path, chips: str, **changes: str) -> None:
        path = directory / f"socket-{len(list(directory.glob('socket-*')))}"
        environment = machine.environment(ASCEND_RT_VISIBLE_DEVICES=chips, **COLOCATED | changes)
        with Listener(str(path)) as listener:
            self.popen = subprocess.Popen([sys.executable, WORKER, path], env=environment)
            self._connection = listener.accept()

    def begin(self, function: Callable[..., Any], *args: Any) -> None:
        """Send a function of a test module and its arguments to be run there."""
        cloudpickle.register_pickle_by_value(sys.modules[function.__module__])
        self._connection.send_bytes(cloudpickle.dumps((function, args)))

    def end(self) -> Any:
        """Return the result of the function."""
        succeeded, result = cloudpickle.loads(self._connection.recv_bytes())
        assert succeeded, result
        return result

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a function there and return its result."""
        self.begin(function, *args)
        return self.end()

    def close(self) -> None:
        """Close the connection and wait for the process to exit."""
        self._connection.close()
        self.popen.wait(timeout=30)


def on_each(processes: list[Process], function: Callable[..., Any], *args: Any) -> list[Any]:
    """Call ``function(rank, world_size, "host:port", *args)`` in each, in parallel."""
    master = f"127.0.0.1:{free_port()}"
    for rank, process in enumerate(processes):
        process.begin(function, rank, len(processes), master, *args)
    return [process.end() for process in processes]
