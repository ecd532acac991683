"""Plan the fixes that vimectl can apply itself: safe changes that one command undoes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from vime_runtime.spec.errors import VimeError

from vimectl.doctor.facts.inputs import read_patch_state
from vimectl.doctor.runner import DoctorReport
from vimectl.patches import command
from vimectl.util.host import Host


@dataclass(frozen=True)
class Fix:
    """A planned fix: its check's id, the same as a command, the command that undoes it, and the files."""

    check: str
    command: str
    undo: str
    changes: tuple[str, ...]
    apply: Callable[[], object]


def plan_fixes(report: DoctorReport, host: Host) -> list[Fix]:
    """Return the fixes for a report. Changes nothing.

    A fix never ends a process or deletes a file (not safe), installs a package (not reversible), or changes
    the environment of the shell (not possible).
    """
    stack, found = report.stack, []
    for failed in report.failures:
        group, _, package = failed.id.partition(".")
        if group != "patches":
            continue
        try:
            targets, directory = read_patch_state(host, stack, package)
            if not targets or not all(target.state in ("pristine", "partial") for target in targets):
                continue
            if any(target.unfinished for target in targets):
                continue  # `vimectl patch recover` decides what the files are
            # One transaction, which refuses files that were edited.
            plan = command.change("apply", targets, dry_run=True).plan
        except VimeError:
            continue  # not installed, or edited: the check reports it and its fix
        where = f"{package} --stack {stack.argument}" + (f" --target {directory}" if directory else "")
        found.append(
            Fix(
                failed.id,
                f"vimectl patch apply {where}",
                f"vimectl patch revert {where}",
                tuple(change["path"] for change in plan.changed()),
                partial(command.change, "apply", targets),
            )
        )
    return found
