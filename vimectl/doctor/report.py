"""Run the checks and count what they found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vimectl.doctor import device, environment, leftovers, machine, memory_saver, packages, patches, python
from vimectl.doctor.finding import Check, Finding, Subject, skipped
from vimectl.errors import unknown
from vimectl.host import Host
from vimectl.recipe.schema import Recipe
from vimectl.stack import Stack

# The order is the order of mending: what comes first is often the cause of what follows.
_GROUPS = (device, machine, python, packages, patches, memory_saver, environment, leftovers)
# Where there is no accelerator at all, that is what is wrong, and not the forty things that would be wanted
# beside it. These groups are of any machine.
_NEEDED = "device.present"
_OF_ANY_MACHINE = ("host", "python", "builder", "leftovers")


@dataclass(frozen=True)
class Report:
    """All findings, in the order in which things are to be mended."""

    stack: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing failed; warnings do not stop a run."""
        return not self.failures

    @property
    def failures(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.status == "fail"]

    @property
    def summary(self) -> dict[str, int]:
        counted = Counter(finding.status for finding in self.findings)
        return {status: counted[status] for status in ("pass", "warn", "fail", "skip")}

    @property
    def first(self) -> Finding | None:
        """What to mend first: the first failure, otherwise the first warning."""
        warnings = [finding for finding in self.findings if finding.status == "warn"]
        return next(iter(self.failures + warnings), None)

    def as_json(self) -> dict[str, Any]:
        """The report as ``doctor --json`` prints it and a run directory keeps it."""
        checks = [asdict(finding) for finding in self.findings]
        return {"stack": self.stack, "checks": checks, "summary": self.summary}


def run_checks(
    host: Host,
    stack: Stack,
    recipe: Recipe | None = None,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
    imports: bool = False,
) -> Report:
    """Examine a machine for a stack, and for a recipe when one is given.

    Args:
        only: names of checks or groups; all when empty. ``without`` names those that are left out.
        imports: whether packages may be imported, each in a child process: that takes seconds.

    Raises:
        BadInput: a name that is neither a check's nor a group's.
    """
    checks = [check for group in _GROUPS for check in group.checks(stack)]
    if only:
        checks = _chosen(checks, only)
    left_out = _chosen(checks, without) if without else []
    subject = Subject(host.remembering(), stack, recipe, imports)
    findings: list[Finding] = []
    lacking = ""
    for check in checks:
        if check in left_out:
            continue
        if lacking and check.group not in _OF_ANY_MACHINE:
            findings.append(check.finding(skipped(lacking)))
            continue
        findings.append(check.run(subject))
        if check.id == _NEEDED and findings[-1].status == "fail":
            lacking = f"{_NEEDED} comes first; to examine it nevertheless: --only"
    return Report(stack.name, tuple(findings))


def _chosen(checks: list[Check], only: Sequence[str]) -> list[Check]:
    known = {check.id for check in checks} | {check.group for check in checks}
    for name in only:
        if name not in known:
            raise unknown("check", name, known)
    return [check for check in checks if check.id in only or check.group in only]
