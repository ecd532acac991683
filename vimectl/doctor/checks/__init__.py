"""Compare a machine with what the job needs. A check touches nothing: every fact comes from ``Facts``.

To add a check: write a reader in ``facts`` if the fact is new, and a function here that is declared with
``@CHECKS.add(id)`` and has the rule as its docstring. Then add its id to ``ids.txt`` and a machine that fails
it to the gallery, both in tests/unit/vimectl/doctor.
"""

from __future__ import annotations

from vimectl.doctor.check import Check
from vimectl.doctor.checks import (
    cann,
    cluster,
    device,
    environment,
    host,
    package_integrity,
    packages,
    recipe,
    stale_runs,
)
from vimectl.stacks.schema import Stack

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
    "cluster",
    "recipe",
    "builder",
    "leftovers",
)
_MODULES = (device, host, cann, packages, package_integrity, environment, cluster, recipe, stale_runs)


def all_checks(stack: Stack) -> list[Check]:
    """Return the checks for a stack, ordered by group."""
    found = [check for module in _MODULES for check in module.CHECKS.of(stack)]
    return sorted(found, key=lambda check: GROUPS.index(check.group))
