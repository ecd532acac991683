"""Run the checks and count what they found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vime_runtime.spec.errors import unknown
from vime_runtime.spec.recipe import Recipe

from vimectl.doctor import (
    builder,
    cann,
    cluster,
    device,
    driver,
    environment,
    imports,
    inputs,
    leftovers,
    machine,
    memory_saver,
    npu,
    packages,
    patches,
    python,
)
from vimectl.doctor.finding import Check, Finding, Subject, skipped
from vimectl.stacks.schema import Stack
from vimectl.util.host import Host

# The order is the order of mending: what comes first is often the cause of what follows.
_GROUPS = (
    device,
    driver,
    machine,
    cann,
    python,
    packages,
    imports,
    patches,
    memory_saver,
    environment,
    cluster,
    inputs,
    builder,
    leftovers,
)


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
    with_imports: bool = False,
    without: Sequence[str] = (),
) -> Report:
    """Examine a machine for a stack, and for a recipe when one is given.

    ``only`` names checks or groups, ``without`` those that are left out; ``with_imports`` adds those that
    import packages, in child processes. Raises UsageError for a name that is neither.
    """
    checks = [check for group in _GROUPS for check in group.checks(stack)]
    left_out = _chosen(checks, without) if without else []
    if only:
        checks = _chosen(checks, only)
    elif not with_imports:
        checks = [check for check in checks if not check.imports]
    checks = [check for check in checks if check not in left_out]
    subject = Subject(host.with_command_cache(), stack, recipe)
    # Without the devices nothing else is worth mending; whoever names a check wants its answer all the same.
    hopeless = None if only else npu.absent(subject)
    if hopeless is None:
        return Report(stack.name, tuple(check.run(subject) for check in checks))
    findings = (
        check.run(subject)
        if check.id == "device.count"
        else check.found(skipped(f"not examined: {hopeless}"))
        for check in checks
    )
    return Report(stack.name, tuple(findings))


def _chosen(checks: list[Check], only: Sequence[str]) -> list[Check]:
    known = {check.id for check in checks} | {check.group for check in checks}
    for name in only:
        if name not in known:
            raise unknown("check", name, known)
    return [check for check in checks if check.id in only or check.group in only]
