"""Every check says what it reads and where its rule comes from, and the machines show it."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase

import pytest

from harness.doctor.described_machine import Machine, names
from harness.doctor.shown_checks import shown_checks
from vimectl.doctor.check import Check
from vimectl.doctor.runner import DoctorReport, all_checks
from vimectl.stacks.catalog import load_stack, stack_names

Examined = Callable[[str], tuple[Machine, DoctorReport]]


@pytest.fixture(scope="module")
def reports(examined: Examined) -> dict[str, DoctorReport]:
    return {name: examined(name)[1] for name in names()}


@pytest.fixture(scope="module")
def checks() -> dict[str, Check]:
    """Every check of every stack by its id."""
    return {check.id: check for stack in stack_names() for check in all_checks(load_stack(stack))}


def test_every_check_fails_on_one_machine_and_passes_on_another() -> None:
    shown = shown_checks()
    assert [check for check, one in shown.items() if not (one.bad and one.good)] == []
    assert len(shown) >= 127
    assert len(names()) >= 100


def test_every_result_can_be_read_and_acted_on(reports: dict[str, DoctorReport]) -> None:
    for name, report in reports.items():
        for result in report.results:
            assert result.found, f"{name}: {result.id} found nothing"
            assert result.rationale, f"{result.id} has no rationale"
            assert result.status not in ("warn", "fail") or (result.expected and result.fix), result.id


def test_every_check_has_a_source_and_says_what_it_reads(checks: dict[str, Check]) -> None:
    assert [id for id, check in checks.items() if not check.source or not check.reads] == []


def _declared(check: Check, report: DoctorReport) -> tuple[str, ...]:
    """Return the patterns of what a check reads. With PYTHONPATH it reads the directories on it."""
    path = report.facts.environment.get("PYTHONPATH", "") if "$PYTHONPATH" in check.reads else ""
    return (*check.reads, *filter(None, path.split(":")), "/proc/self/status")


def test_checks_read_what_they_say(reports: dict[str, DoctorReport], checks: dict[str, Check]) -> None:
    undeclared = {
        (result.id, what)
        for report in reports.values()
        for result in report.results
        for what in result.read
        if not any(fnmatchcase(what, pattern) for pattern in _declared(checks[result.id], report))
    }
    assert not sorted(undeclared)


def test_causes_name_checks_and_have_no_circle(checks: dict[str, Check]) -> None:
    causes = {
        check.id: [id for id in checks for one in check.after if fnmatchcase(id, one) and id != check.id]
        for check in checks.values()
    }
    for check in checks.values():
        for one in check.after:
            assert any(fnmatchcase(id, one) for id in checks), f"{check.id} follows from no check: {one}"
    for id in checks:
        seen, todo = set(), list(causes[id])
        while todo:
            one = todo.pop()
            assert one != id, f"{id} follows from itself"
            if one not in seen:
                seen.add(one)
                todo += causes[one]


def test_checks_show_what_the_reports_say(reports: dict[str, DoctorReport]) -> None:
    found = {
        status: {
            (result.id, name)
            for name, report in reports.items()
            for result in report.results
            if result.status in status
        }
        for status in (("warn", "fail"), ("pass",))
    }
    shown = shown_checks()
    assert {(id, name) for id, one in shown.items() for name in one.bad} == found["warn", "fail"]
    assert {(id, name) for id, one in shown.items() for name in one.good} == found["pass",]
