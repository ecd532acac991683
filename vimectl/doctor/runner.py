"""Run the checks and summarize their results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeVar

from vime_runtime.spec.errors import unknown
from vime_runtime.spec.recipe import Recipe

from vimectl.doctor.check import Check, CheckResult
from vimectl.doctor.checks import (
    assignment,
    builder,
    cann,
    cann_environment,
    capacity,
    chips,
    cluster,
    directories,
    driver,
    environment,
    extensions,
    hccl,
    imports,
    joined_cluster,
    network,
    npu,
    package_integrity,
    packages,
    ports,
    processor,
    python_path,
    recipe,
    requirements,
    stale_runs,
    system_libraries,
    user,
    variable_names,
)
from vimectl.doctor.checks import host as host_checks
from vimectl.doctor.facts import Facts
from vimectl.stacks.schema import Stack
from vimectl.util.host import Host
from vimectl.util.npu_devices import device_nodes

if TYPE_CHECKING:
    from vimectl.doctor.compare_nodes import NodeCheck

AnyCheck = TypeVar("AnyCheck", bound="Check | NodeCheck")

# The order in which to fix things: a failure is often the cause of later ones.
GROUPS = (
    "device",
    "driver",
    "host",
    "cann",
    "python",
    "packages",
    "imports",
    "patches",
    "tms",
    "environment",
    "network",
    "cluster",
    "recipe",
    "builder",
    "leftovers",
)
_MODULES = (
    *(npu, chips, driver, host_checks, processor, system_libraries, capacity, directories),
    *(cann_environment, cann),
    *(packages, requirements, extensions, package_integrity, imports),
    *(user, python_path, environment, variable_names, assignment, hccl, ports, network),
    *(cluster, joined_cluster, recipe, builder, stale_runs),
)


@dataclass(frozen=True)
class DoctorReport:
    """All results, in the order in which to fix things, and the facts that they are about."""

    stack: Stack
    results: tuple[CheckResult, ...]
    facts: Facts

    @property
    def ok(self) -> bool:
        """True if nothing failed. A warning does not prevent a run."""
        return not self.failures

    @property
    def failures(self) -> list[CheckResult]:
        return [result for result in self.results if result.status == "fail"]

    @property
    def summary(self) -> dict[str, int]:
        counted = Counter(result.status for result in self.results)
        return {status: counted[status] for status in ("pass", "warn", "fail", "skip")}

    @property
    def first(self) -> CheckResult | None:
        """Return the result to fix first: the cause of most failures, else the first warning."""
        causes = Counter(result.cause or result.id for result in self.failures)
        warnings = [result for result in self.results if result.status == "warn" and not result.cause]
        roots = [result for result in self.results if result.id in causes]
        return max(roots, key=lambda result: causes[result.id], default=next(iter(warnings), None))

    def as_json(self) -> dict[str, Any]:
        """Return the report as ``doctor --json`` prints it and a run directory keeps it."""
        checks = [result.as_json() for result in self.results]
        stack = {"stack": self.stack.name, "extends": self.stack.extends}
        first = self.first.id if self.first else None
        python = self.facts.interpreter.as_json()
        return {**stack, "python": python, "first": first, "checks": checks, "summary": self.summary}


def run_checks(
    host: Host,
    stack: Stack,
    recipe: Recipe | None = None,
    only: Sequence[str] = (),
    with_imports: bool = False,
    without: Sequence[str] = (),
) -> DoctorReport:
    """Check a machine for a stack, and for a recipe if one is given.

    Args:
        only: checks or groups to run; default: all.
        with_imports: also run the checks that import packages, in child processes.
        without: checks or groups to leave out.

    Raises:
        UsageError: a name is neither a check nor a group, or the given interpreter does not exist.
    """
    checks = all_checks(stack)
    excluded = select_checks(checks, without)
    if only:
        checks = select_checks(checks, only)
    elif not with_imports:
        checks = [check for check in checks if not check.imports]
    checks = [check for check in checks if check not in excluded]
    facts = Facts(host, stack, recipe)
    # Without devices, no other failure is worth fixing. A check that is named in ``only`` runs all the same.
    if stack.stack.device == "npu" and facts.running and not facts.read(device_nodes) and not only:
        reason = "not checked: this machine has no NPU (device.count)"
        results = [
            check.run(facts)
            if check.id == "device.count"
            else CheckResult("skip", reason, id=check.id, rationale=check.rationale)
            for check in checks
        ]
    else:
        last = [check for check in checks if check.id == host_checks.READABLE]
        found = {check.id: check.run(facts) for check in [*(one for one in checks if one not in last), *last]}
        results = [found[check.id] for check in checks]
    return DoctorReport(stack, tuple(with_causes(checks, results)), facts)


def all_checks(stack: Stack) -> list[Check]:
    """Return the checks for a stack, in the order of the report."""
    checks = [check for module in _MODULES for check in module.CHECKS.of(stack)]
    return sorted(checks, key=lambda check: GROUPS.index(check.group))


def with_causes(checks: Sequence[Check], results: Sequence[CheckResult]) -> list[CheckResult]:
    """Return the results with their causes: what explains a failure or warning, and follows from nothing.

    A failure explains failures and warnings. A warning explains only a failure, and only if no failure does:
    a package that is merely of another version, and an import that fails.
    """
    status = {result.id: result.status for result in results}
    after = {check.id: check.after for check in checks}

    def root(name: str) -> str:
        kinds = ("fail", "warn") if status[name] == "fail" else ("fail",)
        for kind in kinds:
            for pattern in after[name]:
                for other in status:
                    if status[other] == kind and other != name and fnmatchcase(other, pattern):
                        return root(other)
        return name

    return [
        replace(result, cause=cause)
        if result.status in ("warn", "fail") and (cause := root(result.id)) != result.id
        else result
        for result in results
    ]


def select_checks(checks: Sequence[AnyCheck], names: Sequence[str]) -> list[AnyCheck]:
    """Return the checks that are named or in a named group.

    Raises:
        UsageError: a name is neither a check nor a group.
    """
    known = {check.id for check in checks} | {check.group for check in checks}
    for name in names:
        if name not in known:
            raise unknown("check", name, known, "`vimectl doctor --list` shows the checks")
    return [check for check in checks if check.id in names or check.group in names]
