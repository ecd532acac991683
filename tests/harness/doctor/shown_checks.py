"""The machines of the gallery that show each check: where it fails, and where it passes.

It is read from the descriptions of the machines; `test_gallery.py` compares these with the reports.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.doctor.described_machine import Description, names
from vimectl.doctor.check import Check
from vimectl.doctor.runner import all_checks
from vimectl.stacks.catalog import load_stack


@dataclass
class Shown:
    """The machines where a check is the first to fix, where it fails or warns, and where it passes."""

    check: Check
    first: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    good: list[str] = field(default_factory=list)


def shown_checks() -> dict[str, Shown]:
    """Return what the machines show of each check, by the id of the check."""
    found: dict[str, Shown] = {}
    for name in names():
        machine = Description(name)
        first = machine.lineage[-1].expect.first
        for check in all_checks(load_stack(machine.stack)):
            one = found.setdefault(check.id, Shown(check))
            status, _ = machine.expected(check.id)
            if check.id == first:
                one.first.append(name)
            if status in ("warn", "fail"):
                one.bad.append(name)
            elif status == "pass":
                one.good.append(name)
    return found
