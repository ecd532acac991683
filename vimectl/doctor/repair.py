"""What can be mended by the tool itself: only what is safe, and can be taken back with one command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from vimectl.doctor.report import Report
from vimectl.errors import VimectlError
from vimectl.host import Host


@dataclass(frozen=True)
class Repair:
    """One mend, before it is made: the checks that it is for, the command that would do the same, the one
    that takes it back, and each file that it changes.
    """

    mends: tuple[str, ...]
    command: str
    undo: str
    changes: tuple[str, ...]
    make: Callable[[], object]


def repairs(report: Report, host: Host) -> list[Repair]:
    """Find what of a report can be mended here. Changes nothing.

    What is not among it is not safe (to end processes, to delete files), not to be taken back (to install
    packages), or not a program's to do (to change the environment of the shell that called it).
    """
    if not host.is_here:
        return []
    return [repair for repair in (_patches(report),) if repair]


def _patches(report: Report) -> Repair | None:
    """Apply the missing patches: one transaction, and files that somebody edited are refused."""
    from vimectl import patching

    mends = tuple(finding.id for finding in report.failures if finding.group == "patches")
    if not mends:
        return None
    try:
        targets = patching.status(report.stack)
        if not all(target.state in ("applied", "pristine", "partial") for target in targets):
            return None
        planned = patching.change("apply", targets, dry_run=True).plan
    except VimectlError:
        return None  # a package that is missing or edited: the finding says so, and its mend
    return Repair(
        mends,
        f"vimectl patch apply --stack {report.stack}",
        f"vimectl patch revert --stack {report.stack}",
        tuple(change["path"] for change in planned.changed()),
        partial(patching.change, "apply", targets),
    )
