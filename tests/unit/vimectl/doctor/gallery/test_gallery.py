"""Each described machine has the expected report, and together they cover every check."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import cache

import pytest

from harness.doctor.described_machine import Machine, names
from vimectl.doctor.runner import DoctorReport

Examined = Callable[[str], tuple[Machine, DoctorReport]]


@pytest.fixture(scope="module")
def examined(tmp_path_factory: pytest.TempPathFactory) -> Examined:
    """A machine and its report by name; each machine is examined once."""

    @cache
    def examine(name: str) -> tuple[Machine, DoctorReport]:
        machine = Machine(name, tmp_path_factory.mktemp(name))
        return machine, machine.examine()

    return examine


@pytest.mark.parametrize("name", names())
def test_expected_report(name: str, examined: Examined) -> None:
    machine, report = examined(name)
    wrong = machine.differences(report)
    assert not wrong, f"{machine.lineage[-1].about}\n" + "\n".join(wrong)


def test_every_check_fails_on_one_machine_and_passes_on_another(examined: Examined) -> None:
    seen = defaultdict(set)
    for name in names():
        for result in examined(name)[1].results:
            seen[result.id].add("bad" if result.status in ("warn", "fail") else result.status)
            assert result.found, f"{name}: {result.id} found nothing"
            assert result.rationale, f"{result.id} has no rationale"
            assert result.status not in ("warn", "fail") or (result.expected and result.fix), result.id
    missing = {check: {"bad", "pass"} - statuses for check, statuses in seen.items()}
    assert not {check: statuses for check, statuses in missing.items() if statuses}
    assert len(names()) >= 20
    assert len(seen) >= 45
