"""Describe a machine with simulated NPUs, and read what happened on it.

What is simulated is the boundary of the hardware: the packages in ``site/`` (``torch_npu`` and
``torch.npu``, ``torch_memory_saver``, MindSpeed's adaptor). A child process that has them on its path
meets ``chips`` NPUs; its device memory is host memory that is counted as the chip's. Everything above,
the runtime first of all, is the real thing and knows nothing of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import TESTS
from harness.runtime.rank_processes import Process

SITE = TESTS / "npu" / "site"
# Tells child processes where the machine is described. Only the packages in ``site/`` read it.
VARIABLE = "SIMULATED_NPU"
# Environment of every process of a colocated run.
COLOCATED = {
    "PYTORCH_NPU_ALLOC_CONF": "expandable_segments:False",
    "CUDA_DEVICE_MAX_CONNECTIONS": "1",
    "GLOO_SOCKET_IFNAME": "lo",
    "OMP_NUM_THREADS": "1",
}


class SimulatedMachine:
    """``chips`` NPUs of ``total`` bytes each; its processes record memory and calls in ``directory``."""

    def __init__(self, directory: Path, chips: int = 2, total: int = 1 << 30) -> None:
        self.directory = directory
        (directory / "calls").mkdir(parents=True)
        for chip in range(chips):
            (directory / "chips" / str(chip)).mkdir(parents=True)
        (directory / "machine.json").write_text(json.dumps({"chips": chips, "total": total}))

    def environment(self, *before: str | Path, **changes: str) -> dict[str, str]:
        """Return the environment of a child process of the machine.

        Args:
            before: goes before everything else on the path, but for what is simulated.
        """
        paths = [str(SITE), str(TESTS), *map(str, before), *_paths(os.environ)]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), VARIABLE: str(self.directory)} | changes

    def start(self, directory: Path, chips: str, **changes: str) -> Process:
        """Start a process that sees ``chips`` and has its socket in ``directory``."""
        return Process(directory, self.environment(ASCEND_RT_VISIBLE_DEVICES=chips, **COLOCATED | changes))

    def calls(self, *names: str) -> list[dict[str, Any]]:
        """Return the calls of all processes in order of time: ``at`` (ns), ``pid``, ``name`` and arguments.

        Args:
            names: only calls of these names; without any, all.
        """
        lines = [
            line for file in (self.directory / "calls").iterdir() for line in file.read_text().splitlines()
        ]
        found = [json.loads(line) for line in lines if line.endswith("}")]
        return sorted((c for c in found if not names or c["name"] in names), key=lambda call: call["at"])

    def used(self, chip: int) -> int:
        """Return the bytes of a chip that living processes hold."""
        books = (self.directory / "chips" / str(chip)).iterdir()
        return sum(int.from_bytes(book.read_bytes()[:8], "little") for book in books if _lives(book.name))


def _paths(environment: Mapping[str, str]) -> list[str]:
    return [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]


def _lives(pid: str) -> bool:
    return pid.isdigit() and Path("/proc", pid).exists()
