"""Write the table of the checks in docs/doctor.md from the checks and the machines of the gallery.

PYTHONPATH=tests:. python -m harness.doctor.checks_page    # examines every machine, and writes the page
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness import REPOSITORY
from harness.doctor.described_machine import Machine, names
from vimectl.doctor.check import Check
from vimectl.doctor.compare_nodes import NODE_CHECKS, NodeCheck
from vimectl.doctor.runner import DoctorReport, all_checks
from vimectl.stacks.catalog import load_stack

PAGE = REPOSITORY / "docs" / "doctor.md"
_BEGIN = "<!-- The checks: written by `PYTHONPATH=tests:. python -m harness.doctor.checks_page`. -->\n"
# Nodes are compared in pairs there: alike, and with one difference.
_NODES = "[test_nodes.py](../tests/unit/vimectl/doctor/test_nodes.py)"
_HEADER = "| check | reads | rule | source | fails on | passes on |\n| --- | --- | --- | --- | --- | --- |\n"


@dataclass
class Shown:
    """The machines where a check is the first to fix, where it fails or warns, and where it passes."""

    check: Check
    first: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    good: list[str] = field(default_factory=list)

    def row(self) -> str:
        """Return the row of the table, with one machine of each kind."""
        return _row(self.check, next(iter(self.first or self.bad), ""), next(iter(self.good), ""))


def shown_by(reports: Mapping[str, DoctorReport]) -> dict[str, Shown]:
    """Return what the machines of the gallery show of each check, by the id of the check.

    Args:
        reports: by the name of the machine.
    """
    found: dict[str, Shown] = {}
    for name, report in sorted(reports.items()):
        for check in all_checks(load_stack(report.stack.argument)):
            found.setdefault(check.id, Shown(check))
        for result in report.results:
            one = found[result.id]
            if report.first and report.first.id == result.id:
                one.first.append(name)
            if result.status in ("warn", "fail"):
                one.bad.append(name)
            elif result.status == "pass":
                one.good.append(name)
    return found


def _row(check: Check | NodeCheck, bad: str, good: str) -> str:
    reads = ", ".join(f"`{one}`" for one in check.reads)
    cells = [f"`{check.id}`", reads, check.rationale, check.source, bad, good]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def page(reports: Mapping[str, DoctorReport]) -> str:
    """Return docs/doctor.md with a current table; what people wrote above it is kept."""
    text = PAGE.read_text(encoding="utf-8")
    rows = [shown.row() for shown in sorted(shown_by(reports).values(), key=lambda one: one.check.id)]
    rows += [_row(check, _NODES, _NODES) for check in NODE_CHECKS]
    kept = text.partition(_BEGIN)[0]
    kept = re.sub(
        r"\d+ checks, shown by \d+ machines", f"{len(rows)} checks, shown by {len(reports)} machines", kept
    )
    return f"{kept}{_BEGIN}\n{_HEADER}{''.join(rows)}"


def main() -> None:
    """Examine every machine of the gallery and write the page."""
    with tempfile.TemporaryDirectory() as folder:
        reports = {name: Machine(name, Path(folder) / name).examine() for name in names()}
    PAGE.write_text(page(reports), encoding="utf-8")


if __name__ == "__main__":
    main()
