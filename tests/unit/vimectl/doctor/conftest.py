"""Healthy machines that a test changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.doctor.described_machine import Machine


@pytest.fixture
def cpu(tmp_path: Path) -> Machine:
    """A machine with the locked CPU stack."""
    return Machine("cpu-host", tmp_path / "machine")


@pytest.fixture
def npu(tmp_path: Path) -> Machine:
    """A host with eight NPUs and the Ascend stack."""
    return Machine("a2-host", tmp_path / "machine")
