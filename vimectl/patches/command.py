"""Run the patch commands: classify the targets, and change them together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vime_runtime.spec.errors import CheckFailed, UsageError

from vimectl.patches import transaction_journal
from vimectl.patches.selection import Selection
from vimectl.patches.state import TargetStatus, classify
from vimectl.stacks.catalog import default_stack, is_series_directory, is_stack_path, load_summary

if TYPE_CHECKING:
    from vimectl.patches.plan import PatchAction, PatchPlan


class PatchOutcome(NamedTuple):
    """The plan of a change, and the states afterwards (for a dry run: before)."""

    plan: PatchPlan
    targets: list[TargetStatus]


def status(
    stack: str | None = None,
    directory: Path | None = None,
    packages: Sequence[str] = (),
    version: str | None = None,
) -> list[TargetStatus]:
    """Find packages and classify them, as ``Selection.statuses`` does, without changing anything."""
    return Selection(tuple(packages), stack, directory=directory, version=version).statuses()


def recover_and_classify(selection: Selection) -> tuple[list[TargetStatus], list[str]]:
    """Finish or undo interrupted changes, then classify; also return messages about the changes.

    Waits for a change in progress. Errors are also those of ``transaction.recover``.
    """
    messages = recover(_project_roots(selection))  # or a series may be read half changed
    while True:
        statuses = selection.statuses()
        locations = sorted({one.target.location for one in statuses})
        pending = any(map(transaction_journal.is_pending, locations))
        messages += recover(locations)
        if not pending:  # otherwise the files may have been read half changed
            return statuses, messages


def _project_roots(selection: Selection) -> list[Path]:
    """Return the directories in which `patch save` changes a project."""
    name = selection.stack or default_stack()
    if selection.series or not name or not is_stack_path(name):
        return []
    root = Path(name).absolute().parent
    entries = [entry for entries in load_summary(name).patches.values() for entry in entries]
    directories = (Path(entry) for entry in entries if is_series_directory(entry))
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
    from vimectl.patches.target_lock import locked

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
        if plan.steps:
            transaction.execute(action, plan.steps, plan.folders)
    return PatchOutcome(plan, [classify_again(one) for one in targets])


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
