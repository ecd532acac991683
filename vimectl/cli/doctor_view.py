"""The doctor's report and its list of checks, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from vimectl.cli.output import CommandOutput, TextTable
from vimectl.util.console import Markup, escape_markup

if TYPE_CHECKING:
    from vimectl.doctor.check import Check, CheckResult
    from vimectl.doctor.compare_nodes import NodeCheck
    from vimectl.doctor.runner import DoctorReport
    from vimectl.stacks.schema import Stack

_COLORS = {"pass": "green", "warn": "yellow", "fail": "red", "skip": "dim"}  # nosec B105 # a status
_WORST_FIRST = ("fail", "warn", "pass", "skip")


def report_text(report: DoctorReport, every: bool) -> Iterator[Markup]:
    """Yield one line for each group, and each warning and failure in full; ``every``: each result in full.

    What follows from a failure is one line under it.
    """
    groups: dict[str, list[CheckResult]] = {}
    followers: dict[str, list[CheckResult]] = {}
    for result in report.results:
        groups.setdefault(result.group, []).append(result)
        followers.setdefault(result.cause, []).append(result)
    skipped = []
    for group, results in groups.items():
        counts: Counter[str] = Counter(result.status for result in results)
        if not every and counts["skip"] == len(results):
            skipped.append(group)
            continue
        summary = ", ".join(f"{counts[status]} {status}" for status in _COLORS if counts[status])
        worst = next(status for status in _WORST_FIRST if counts[status])
        yield Markup(f"[{_COLORS[worst]}]{worst:4}[/]  {group}: {summary}")
        for result in results:
            if every or (result.status in ("warn", "fail") and not result.cause):
                yield from _in_full(result, followers.get(result.id, ()), with_read=every)
    if skipped:
        total = sum(len(groups[name]) for name in skipped)
        yield Markup(f"[{_COLORS['skip']}]skip[/]  {', '.join(skipped)}: {total} skip")
    yield Markup(f"[bold]{escape_markup(_last_line(report))}[/]")


def _in_full(result: CheckResult, followers: Iterable[CheckResult], with_read: bool) -> Iterator[Markup]:
    from vimectl.doctor.check import listed

    yield Markup(f"      {_status(result)}")
    fields = {
        "found": result.found,
        "expected": result.expected,
        "why": result.rationale,
        "follows from": result.cause,
        "fix": result.fix,
        "read": listed(result.read) if with_read else "",
    }
    for label, text in fields.items():
        if text:
            yield Markup(f"           {label}: {escape_markup(text)}")
    for one in followers:
        yield Markup(f"           then also: {_status(one)}: {escape_markup(one.found)}")


def _status(result: CheckResult) -> str:
    return f"[{_COLORS[result.status]}]{result.status}[/] {result.id}"


def _last_line(report: DoctorReport) -> str:
    """Return what to do next."""
    first = report.first
    if first is None:
        return f"{report.stack.title}: {report.summary['pass']} checks, no problems found"
    if report.ok:
        return f"{report.stack.title}: nothing prevents a run; first warning: {first.id}: {first.fix}"
    return f"fix first: {first.id}: {first.fix}"


def check_list(stack: Stack, only: Sequence[str]) -> CommandOutput:
    """Return the checks for a stack: what each one reads, when it applies, its rule and the rule's source.

    Args:
        only: checks or groups to list; default: all.
    """
    from vimectl.doctor.compare_nodes import NODE_CHECKS
    from vimectl.doctor.runner import all_checks, select_checks

    checks: list[Check | NodeCheck] = [*all_checks(stack), *NODE_CHECKS]
    if only:
        checks = select_checks(checks, only)
    rows = [[one.id, one.when, " ".join(one.reads), one.rationale, one.source] for one in checks]
    table = TextTable(["check", "when", "reads", "rule", "source"], rows, f"the checks for {stack.title}")
    document = [
        {
            "id": one.id,
            "group": one.group,
            "when": one.when,
            "reads": one.reads,
            "why": one.rationale,
            "source": one.source,
            "after": one.after,
        }
        for one in checks
    ]
    return CommandOutput({"stack": stack.name, "checks": document}, [table])
