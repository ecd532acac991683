"""Each described machine gets the report that its description says, and together they show every check."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from harness.doctor.described_machine import Machine, names


@pytest.mark.parametrize("name", names())
def test_machine_gets_its_report(name: str, tmp_path: Path) -> None:
    machine = Machine(name, tmp_path)
    wrong = machine.differences(machine.examine())
    assert not wrong, f"{machine.lineage[-1].about}\n" + "\n".join(wrong)


def test_every_check_fails_on_one_machine_and_passes_on_another(tmp_path: Path) -> None:
    seen = defaultdict(set)
    for name in names():
        for finding in Machine(name, tmp_path / name).examine().findings:
            seen[finding.id].add("bad" if finding.status in ("warn", "fail") else finding.status)
            assert finding.found, f"{name}: {finding.id} found nothing"
            assert finding.why, f"{finding.id} cites no rule"
            assert finding.status not in ("warn", "fail") or (finding.expected and finding.fix), finding.id
    lacking = {check: {"bad", "pass"} - statuses for check, statuses in seen.items()}
    assert not {check: statuses for check, statuses in lacking.items() if statuses}
    assert len(names()) >= 20
    assert len(seen) >= 45
