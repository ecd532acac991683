"""Plan the fixes that vimectl can apply itself: safe changes that one command undoes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from vime_runtime.spec.errors import VimeError

from vimectl.doctor.facts.inputs import read_patch_state
from vimectl.doctor.runner import DoctorReport
from vimectl.patches import command
from vimectl.stacks.catalog import load_stack
from vimectl.stacks.schema import Stack
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
    stack = load_stack(report.stack)
    failed = [result.id for result in report.failures if result.group == "patches"]
    found = [_apply_patches(id.partition(".")[2], id, host, stack) for id in failed]
    return [fix for fix in found if fix]


def _apply_patches(package: str, check: str, host: Host, stack: Stack) -> Fix | None:
    """Plan to apply a package's patches: one transaction, which refuses files that were edited."""
    try:
        targets, directory = read_patch_state(host, stack, package)
        if not targets or not all(target.state in ("pristine", "partial") for target in targets):
            return None
        plan = command.change("apply", targets, dry_run=True).plan
    except VimeError:
        return None  # not installed, or edited: the check reports it and its fix
    where = f"{package} --stack {stack.name}" + (f" --target {directory}" if directory else "")
    return Fix(
        check,
        f"vimectl patch apply {where}",
        f"vimectl patch revert {where}",
        tuple(change["path"] for change in plan.changed()),
        partial(command.change, "apply", targets),
    )
