"""The region of torch_memory_saver on the simulated NPU passes the same cases as every other region."""

from __future__ import annotations

import pytest

from harness.npu.simulated_machine import SimulatedMachine
from harness.runtime import region_conformance


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> SimulatedMachine:
    return SimulatedMachine(tmp_path_factory.mktemp("machine") / "npus", chips=1, total=256 << 20)


@pytest.fixture(scope="module")
def failures(machine: SimulatedMachine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    process = machine.start(tmp_path_factory.mktemp("process"), "0")
    try:
        return process.run(region_conformance.torch_memory_saver_failures, "npu", "torch")
    finally:
        process.close()


@pytest.mark.parametrize("case", region_conformance.CASES)
def test_npu_region(case: str, failures: dict[str, str], machine: SimulatedMachine) -> None:
    assert failures[case] == ""
    assert machine.calls("tms_pause")
