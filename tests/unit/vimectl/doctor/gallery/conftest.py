"""The reports of all described machines, each examined once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from harness.doctor.described_machine import Machine
from vimectl.doctor.runner import DoctorReport

Examined = Callable[[str], tuple[Machine, DoctorReport]]


@pytest.fixture(scope="package")
def examined(tmp_path_factory: pytest.TempPathFactory) -> Examined:
    """A machine and its report by name."""

    @cache
    def examine(name: str) -> tuple[Machine, DoctorReport]:
        machine = Machine(name, tmp_path_factory.mktemp(name))
        return machine, machine.examine()

    return examine
