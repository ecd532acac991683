"""Processes that run the functions a test sends them: one, or the ranks of a group."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from functools import cached_property
from multiprocessing.connection import Connection, Listener, wait
from pathlib import Path
from typing import Any

import cloudpickle

from harness import script

# How long ranks may take to fail after one that has: they wait for it in a collective, perhaps for ever.
GRACE = 10.0


class Process:
    """A process that stays, so that each test does not import torch and Megatron-core anew."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.directory = directory
        path = directory / f"socket-{len(list(directory.glob('socket-*')))}"
        self._listener = Listener(str(path))
        self.popen = subprocess.Popen(
            [sys.executable, script("runtime.rank_worker"), str(path)], env=environment
        )

    @cached_property
    def connection(self) -> Connection:
        """The connection, which the process opens when it has imported torch."""
        return self._listener.accept()

    def begin(self, function: Callable[..., Any], *args: Any) -> None:
        """Send a function of a test module and its arguments to be run there."""
        cloudpickle.register_pickle_by_value(sys.modules[function.__module__])
        self.connection.send_bytes(cloudpickle.dumps((function, args)))

    def end(self) -> Any:
        """Return the result of the function."""
        try:
            succeeded, result = cloudpickle.loads(self.connection.recv_bytes())
        except EOFError:
            succeeded, result = False, "the process died"
        assert succeeded, result
        return result

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a function there and return its result."""
        self.begin(function, *args)
        return self.end()

    def close(self) -> None:
        """Close the connection, if the process has opened it, and wait for the process to exit."""
        self._listener.close()
        if "connection" in vars(self):
            self.connection.close()
        self.popen.wait(timeout=30)


def new_store(directory: Path) -> str:
    """Return the path of a file in which ranks can meet."""
    return str(directory / f"ranks-{uuid.uuid4().hex}")


def on_each(processes: list[Process], function: Callable[..., Any], *args: Any) -> list[Any]:
    """Call ``function(rank, world_size, store, *args)`` in each, in parallel; return the results.

    ``store`` is the path of a new file in which the ranks meet, for torch's ``FileStore``.
    """
    store = new_store(processes[0].directory)
    for rank, process in enumerate(processes):
        process.begin(function, rank, len(processes), store, *args)
    waiting: Any = {process.connection: rank for rank, process in enumerate(processes)}
    results: dict[int, Any] = {}
    failure = ""
    while waiting and (ready := wait(waiting, GRACE if failure else None)):
        for connection in ready:
            rank = waiting.pop(connection)
            try:
                results[rank] = processes[rank].end()
            except AssertionError as e:
                failure = failure or f"rank {rank}: {e}"
    assert not failure, failure
    return [results[rank] for rank in range(len(processes))]
