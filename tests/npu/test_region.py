"""The region of torch_memory_saver on the released torch_npu passes the same cases as every other region."""

from __future__ import annotations

import pytest

from harness.npu.machine import Machine
from harness.runtime import region_conformance


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine") / "npus", chips=1, chip_bytes=256 << 20)


@pytest.fixture(scope="module")
def failures(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    process = machine.start(tmp_path_factory.mktemp("process"), "0")
    try:
        return process.run(region_conformance.torch_memory_saver_failures, "npu", "torch")
    finally:
        process.close()


@pytest.mark.parametrize("case", region_conformance.CASES)
def test_npu_region(case: str, failures: dict[str, str], machine: Machine) -> None:
    assert failures[case] == ""
    assert machine.events("aclrtMapMem")
