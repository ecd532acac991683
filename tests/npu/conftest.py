"""A simulated machine with two NPUs, and a process on each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.npu.simulated_machine import SimulatedMachine
from harness.runtime.rank_processes import Process

CHIP = 64 << 20  # bytes


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> SimulatedMachine:
    return SimulatedMachine(tmp_path_factory.mktemp("machine") / "npus", chips=2, total=CHIP)


@pytest.fixture(scope="module")
def pair(machine: SimulatedMachine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Process]]:
    """A process on chip 1, its only one and so its device 0, and one on chip 0 that sees both."""
    folder = tmp_path_factory.mktemp("pair")
    processes = [machine.start(folder, "1"), machine.start(folder, "0,1")]
    yield processes
    for process in processes:
        process.close()
