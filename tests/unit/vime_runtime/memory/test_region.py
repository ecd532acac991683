"""Every implementation of OffloadableRegion passes the same cases. The NPU: tests/npu/test_region.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from vime_runtime.memory import cpu_region
from vime_runtime.memory.cpu_region import CpuRegion
from vime_runtime.memory.region import MemoryUsage

from harness.runtime import region_conformance


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "page-cache"])
@pytest.mark.parametrize("case", region_conformance.CASES)
def test_cpu_region(case: str, direct: bool, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not direct:  # as on a file system without O_DIRECT
        monkeypatch.setattr(cpu_region, "bypass_page_cache", lambda file: None)
    region_conformance.CASES[case](CpuRegion(disk), torch.device("cpu"))


@pytest.fixture(scope="module")
def gpu_failures() -> dict[str, str]:
    """Return the failure of each case in a process that has the library preloaded."""
    from torch_memory_saver import configure_subprocess

    with configure_subprocess():
        child = subprocess.run(
            [sys.executable, region_conformance.__file__], stdout=subprocess.PIPE, check=True
        )
    return json.loads(child.stdout)


@pytest.mark.needs("gpu")
@pytest.mark.parametrize("case", region_conformance.CASES)
def test_gpu_region(case: str, gpu_failures: dict[str, str]) -> None:
    assert gpu_failures[case] == ""


def test_memory_usage_adds_up() -> None:
    assert MemoryUsage.total(MemoryUsage(2, reclaimable=1) for _ in range(3)) == MemoryUsage(6, 3)
