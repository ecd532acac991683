"""Each implementation of the training region against the same cases. The NPU's: tests/npu."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from vime_runtime.memory import cpu_region
from vime_runtime.memory.cpu_region import HostRegion
from vime_runtime.memory.region import Residency

from harness.runtime import region_conformance


@pytest.mark.parametrize("case", region_conformance.CASES)
def test_memory_of_the_host(case: str, disk: Path) -> None:
    region_conformance.CASES[case](HostRegion(disk), torch.device("cpu"))


@pytest.mark.parametrize("case", region_conformance.CASES)
def test_memory_of_the_host_on_a_file_system_without_direct_access(
    case: str, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_region, "bypass_cache", lambda file: None)
    region_conformance.CASES[case](HostRegion(disk), torch.device("cpu"))


@pytest.fixture(scope="module")
def on_a_gpu() -> dict[str, str]:
    """What each case failed with, in a process that has the library preloaded as a trainer on CUDA has."""
    from torch_memory_saver import configure_subprocess

    with configure_subprocess():
        child = subprocess.run(
            [sys.executable, region_conformance.__file__], stdout=subprocess.PIPE, check=True
        )
    return json.loads(child.stdout)


@pytest.mark.needs("gpu")
@pytest.mark.parametrize("case", region_conformance.CASES)
def test_memory_of_a_gpu(case: str, on_a_gpu: dict[str, str]) -> None:
    assert on_a_gpu[case] == ""


def test_residencies_add_up() -> None:
    assert Residency.total(Residency(mapped=2, resident=1) for _ in range(3)) == Residency(6, 3)
