"""Check ids are stable: scripts use them."""

from __future__ import annotations

import re
from pathlib import Path

from vimectl.doctor.runner import run_checks
from vimectl.stacks.catalog import load_stack, stack_names
from vimectl.util.host import Host, refuse_command

# Every id of a release. Add new ones, and remove none.
STABLE = Path(__file__).with_name("ids.txt").read_text().split()


def ids(stack: str) -> list[str]:
    nothing = Host(Path("/nowhere"), {}, refuse_command)
    report = run_checks(nothing, load_stack(stack), with_imports=True)
    return [result.id for result in report.results]


def test_ids_are_kept_and_unique() -> None:
    known: set[str] = set()
    for stack in stack_names():
        found = ids(stack)
        assert len(found) == len(set(found)) >= 45
        known |= set(found)
    assert set(STABLE) <= known
    assert all(re.fullmatch(r"[a-z]+\.[\w.-]+", name) for name in known)


def test_checks_of_an_empty_file_system_have_results() -> None:
    nothing = Host(Path("/nowhere"), {}, refuse_command)
    for result in run_checks(nothing, load_stack("ascend-0.22"), with_imports=True).results:
        assert result.found
        assert result.rationale
        assert result.status not in ("warn", "fail") or (result.expected and result.fix)
