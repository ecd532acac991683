"""Each described machine has the expected report."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.doctor.described_machine import Machine, names
from vimectl.doctor.runner import DoctorReport

Examined = Callable[[str], tuple[Machine, DoctorReport]]


@pytest.mark.parametrize("name", names())
def test_expected_report(name: str, examined: Examined) -> None:
    machine, report = examined(name)
    wrong = machine.differences(report)
    assert not wrong, f"{machine.lineage[-1].about}\n" + "\n".join(wrong)
