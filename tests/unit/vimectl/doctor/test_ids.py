"""The ids of checks are a promise: scripts ask for them by name."""

from __future__ import annotations

import re
from pathlib import Path

from vimectl.doctor import run_checks
from vimectl.stacks.catalog import load_stack, stack_names
from vimectl.util.host import Host, refuse_command

# Every id there has ever been in a release. Add to it; take nothing out.
PROMISED = Path(__file__).with_name("ids.txt").read_text().split()


def ids(stack: str) -> list[str]:
    nothing = Host(Path("/nowhere"), {}, refuse_command)
    report = run_checks(nothing, load_stack(stack), with_imports=True)
    return [finding.id for finding in report.findings]


def test_no_id_is_dropped_and_none_is_there_twice() -> None:
    known: set[str] = set()
    for stack in stack_names():
        found = ids(stack)
        assert len(found) == len(set(found)) >= 45
        known |= set(found)
    assert set(PROMISED) <= known
    assert all(re.fullmatch(r"[a-z]+\.[\w.-]+", name) for name in known)


def test_a_check_of_a_file_system_without_anything_never_fails_to_answer() -> None:
    nothing = Host(Path("/nowhere"), {}, refuse_command)
    for finding in run_checks(nothing, load_stack("ascend-0.22"), with_imports=True).findings:
        assert finding.found
        assert finding.why
        assert finding.status not in ("warn", "fail") or (finding.expected and finding.fix)
