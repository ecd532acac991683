"""Run the patch commands: classify the targets, and change them together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vime_runtime.spec.errors import CheckFailed, UsageError

from vimectl.patches import transaction_journal
from vimectl.patches.selection import Selection
from vimectl.patches.state import TargetStatus, classify
from vimectl.patches.target_lock import is_locked, locked, wait_until_unlocked
from vimectl.stacks.catalog import default_stack, is_series_directory, is_stack_path, load_summary

if TYPE_CHECKING:
    from vimectl.patches.plan import PatchAction, PatchPlan


class PatchOutcome(NamedTuple):
    """The plan of a change, and the states afterwards (for a dry run: before).

    ``lost`` are messages about attributes of files that could not be kept.
    """

    plan: PatchPlan
    targets: list[TargetStatus]
    lost: Sequence[str] = ()


def status(
    stack: str | None = None,
    directory: Path | None = None,
    packages: Sequence[str] = (),
    version: str | None = None,
) -> list[TargetStatus]:
    """Find packages and classify them, as ``Selection.statuses`` does, without changing anything."""
    return Selection(tuple(packages), stack, directory=directory, version=version).statuses()


def classify_unlocked(selection: Selection) -> list[TargetStatus]:
    """Classify the targets without changing anything. Waits for a change in progress."""
    for root in project_roots(selection):
        wait_until_unlocked(root)  # or a series may be read half changed
    while True:
        statuses = selection.statuses()
        locations = sorted({one.target.location for one in statuses})
        if not any(map(is_locked, locations)):  # otherwise the files may have been read half changed
            return statuses
        for location in locations:
            wait_until_unlocked(location)


def recover_and_classify(selection: Selection) -> tuple[list[TargetStatus], list[str]]:
    """Finish or undo interrupted changes, then classify; also return messages about the changes.

    Waits for a change in progress. Errors are also those of ``transaction.recover``.
    """
    messages = recover(project_roots(selection))
    if selection.directory and selection.directory.is_dir():
        # Also if the interrupted change keeps the packages from being found.
        messages += recover([selection.directory.resolve()])
    while True:
        statuses = classify_unlocked(selection)
        locations = sorted({one.target.location for one in statuses})
        found = recover(locations)
        if not found:
            return statuses, messages
        messages += found


def project_roots(selection: Selection) -> list[Path]:
    """Return the directories in which `patch save` changes a project."""
    name = selection.stack or default_stack()
    if selection.series or not name or not is_stack_path(name):
        return []
    root = Path(name).absolute().parent.resolve()
    entries = [entry for entries in load_summary(name).patches.values() for entry in entries]
    directories = (Path(entry).resolve() for entry in entries if is_series_directory(entry))
    return [root, *(one for one in directories if one.is_dir() and not one.is_relative_to(root))]


def change(
    action: PatchAction, targets: Sequence[TargetStatus], dry_run: bool = False, merge: bool = False
) -> PatchOutcome:
    """Apply or revert the series of all targets, all or none.

    Raises UsageError when a target is a wheel; other errors are those of ``plan.make_plan``,
    ``transaction.recover`` and ``transaction.execute``.
    """
    # Imported here: `patch status` does not need what changes files.
    from vimectl.patches import transaction
    from vimectl.patches.plan import make_plan

    for one in targets:
        if one.target.kind == "wheel":
            raise UsageError(
                f"{one.target.location}: a wheel is read-only; only verify, status, diff and lint read it",
                f"unpack it, and {action} with --target DIR",
            )
    if dry_run:
        return PatchOutcome(make_plan(action, targets, merge), list(targets))
    locations = sorted({one.target.location for one in targets})
    recover(locations)
    with locked(locations):
        # Classified again: the files may have changed before the locks were held.
        plan = make_plan(action, [classify_again(one) for one in targets], merge)
        lost = transaction.execute(action, plan.steps, plan.folders) if plan.steps else []
    return PatchOutcome(plan, [classify_again(one) for one in targets], lost)


def adopt(targets: Sequence[TargetStatus]) -> PatchOutcome:
    """Take patches that another tool applied into bookkeeping; no source file changes.

    Raises CheckFailed when a target does not have exactly the content of its series.
    """
    for one in targets:
        if one.state != "applied":
            where = f"{one.target.package} in {one.target.location}"
            raise CheckFailed(
                f"{where} is {one.state}, not applied, so there is nothing to adopt",
                "vimectl patch status shows what differs; with --series DIR another series is adopted",
            )
    return change("apply", targets)


def classify_again(one: TargetStatus) -> TargetStatus:
    """Return the present state of a target."""
    return classify(one.target, one.series, one.note, one.hint)


def recover(locations: Sequence[Path]) -> list[str]:
    """Finish or undo interrupted changes in directories, and return messages about them."""
    messages = []
    for location in locations:
        if transaction_journal.needs_recovery(location):
            from vimectl.patches import transaction  # rarely needed, but every command checks for it

            messages.append(transaction.recover(location))
    return [message for message in messages if message]
