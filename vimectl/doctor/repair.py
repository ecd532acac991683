"""What can be mended by the tool itself: only what is safe, and can be taken back with one command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from vime_runtime.spec.errors import VimeError

from vimectl.doctor import patches
from vimectl.doctor.finding import Subject
from vimectl.doctor.report import Report
from vimectl.stacks.catalog import load_stack
from vimectl.util.host import Host


@dataclass(frozen=True)
class Repair:
    """One mend, before it is made: the check that it is for, the command that would do the same, the one
    that takes it back, and each file that it changes.
    """

    mends: str
    command: str
    undo: str
    changes: tuple[str, ...]
    make: Callable[[], object]


def repairs(report: Report, host: Host) -> list[Repair]:
    """Find what of a report can be mended. Changes nothing.

    What is not among it is not safe (to end processes, to delete files), not to be taken back (to install
    packages), or not a program's to do (to change the environment of the shell that called it).
    """
    subject = Subject(host, load_stack(report.stack))
    missing = [finding for finding in report.failures if finding.group == "patches"]
    found = [_patch(finding.id.partition(".")[2], finding.id, subject) for finding in missing]
    return [repair for repair in found if repair]


def _patch(package: str, check: str, subject: Subject) -> Repair | None:
    """Apply a package's patches: one transaction, which refuses files that somebody edited."""
    from vimectl import patches as patching

    try:
        targets, directory = patches.examined(package, subject)
        if not targets or not all(target.state in ("pristine", "partial") for target in targets):
            return None
        planned = patching.change("apply", targets, dry_run=True).plan
    except VimeError:
        return None  # not installed, or edited: the finding says so, and its mend
    where = f"{package} --stack {subject.stack.name}" + (f" --target {directory}" if directory else "")
    return Repair(
        check,
        f"vimectl patch apply {where}",
        f"vimectl patch revert {where}",
        tuple(change["path"] for change in planned.changed()),
        partial(patching.change, "apply", targets),
    )
