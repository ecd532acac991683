"""Each described machine has the expected report, and together they cover every check."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from harness.doctor.described_machine import Machine, names


@pytest.mark.parametrize("name", names())
def test_expected_report(name: str, tmp_path: Path) -> None:
    machine = Machine(name, tmp_path)
    wrong = machine.differences(machine.examine())
    assert not wrong, f"{machine.lineage[-1].about}\n" + "\n".join(wrong)


def test_every_check_fails_on_one_machine_and_passes_on_another(tmp_path: Path) -> None:
    seen = defaultdict(set)
    for name in names():
        for result in Machine(name, tmp_path / name).examine().results:
            seen[result.id].add("bad" if result.status in ("warn", "fail") else result.status)
            assert result.found, f"{name}: {result.id} found nothing"
            assert result.rationale, f"{result.id} has no rationale"
            assert result.status not in ("warn", "fail") or (result.expected and result.fix), result.id
    lacking = {check: {"bad", "pass"} - statuses for check, statuses in seen.items()}
    assert not {check: statuses for check, statuses in lacking.items() if statuses}
    assert len(names()) >= 20
    assert len(seen) >= 45
