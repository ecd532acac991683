"""What the commands do: find the targets of a stack, judge them, and change them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vimectl.patches import find, journal, recovery
from vimectl.patches.state import TargetStatus, judge

if TYPE_CHECKING:
    from vimectl.patches.plan import Action, Plan


@dataclass(frozen=True)
class Outcome:
    """The plan of an apply or revert, and the states afterwards (those found, when it was a dry run)."""

    plan: Plan
    targets: list[TargetStatus]


def status(
    stack: str | None = None,
    directory: Path | None = None,
    packages: Sequence[str] = (),
    version: str | None = None,
) -> list[TargetStatus]:
    """Judge the packages that a stack patches. Changes nothing. Arguments and errors: ``find.targets``."""
    return [
        judge(one.target, find.series_of(one)) for one in find.targets(stack, directory, packages, version)
    ]


def recovered(
    stack: str | None = None,
    directory: Path | None = None,
    packages: Sequence[str] = (),
    version: str | None = None,
) -> tuple[list[TargetStatus], list[str]]:
    """As ``status``, after finishing or taking back what interrupted commands left; also what was done.

    Waits for a change that is under way. Errors are also those of ``recovery.recover``.
    """
    found = find.targets(stack, directory, packages, version)
    messages = []
    while True:
        for location in sorted({one.target.location for one in found}):
            message = recovery.recover(location)
            messages += [message] if message else []
        judged = [judge(one.target, find.series_of(one)) for one in found]
        # A change that began meanwhile may have been seen half done.
        if not any(journal.pending(one.target.location) for one in found):
            return judged, messages


def change(
    action: Action, targets: Sequence[TargetStatus], dry_run: bool = False, merge: bool = False
) -> Outcome:
    """Apply or revert the series of all targets, all or nothing.

    Errors are those of ``plan.make``, ``recovery.recover`` and ``transaction.execute``.
    """
    # Imported here: to look at a stack takes less than to import what changes one.
    from vimectl.patches import plan, transaction
    from vimectl.patches.lock import locked

    plan.refuse_wheels(action, targets)
    if dry_run:
        return Outcome(plan.make(action, targets, merge), list(targets))
    for location in sorted({one.target.location for one in targets}):
        recovery.recover(location)
    with locked(sorted({one.target.location for one in targets})):
        # Judged again: what was found before the locks were held may have changed.
        planned = plan.make(action, [judge(one.target, one.series) for one in targets], merge)
        if planned.steps:
            transaction.execute(action, planned.steps, planned.folders)
    return Outcome(planned, [judge(one.target, one.series) for one in targets])
