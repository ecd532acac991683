"""What an apply or a revert would change, as a value: `--dry-run` prints it, the transaction executes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vime_runtime.spec.errors import CheckFailed, UsageError

from vimectl.patches import bookkeeping, content, tree
from vimectl.patches.blobs import fresh_mode, id_of, permissions
from vimectl.patches.difference import edits
from vimectl.patches.state import TargetStatus
from vimectl.patches.transaction import Step

Action = Literal["apply", "revert"]


@dataclass(frozen=True)
class Plan:
    """``sources`` change the packages; ``upkeep`` keeps RECORD files and the bookkeeping in step.

    ``folders`` are those that exist only for created files: they go when the last of these goes.
    """

    action: Action
    sources: tuple[Step, ...]
    upkeep: tuple[Step, ...]
    folders: tuple[Path, ...] = ()

    @property
    def steps(self) -> tuple[Step, ...]:
        return self.sources + self.upkeep

    def changed(self) -> list[dict[str, Any]]:
        """The changed files as the contract's ``changed``: path and blob ids."""
        return [
            {"path": str(step.location / step.path), "before": id_of(step.before), "after": id_of(step.after)}
            for step in self.sources
        ]


def make(action: Action, statuses: Sequence[TargetStatus], merge: bool = False) -> Plan:
    """Plan to bring every target to ``applied`` or back to ``pristine``; empty when all are there already.

    ``merge``: carry the edits of files that somebody edited over (see ``merge``) instead of refusing.

    Raises:
        CheckFailed: a target has no series, or a file that somebody edited; the message shows the difference.
        UsageError: a target is a wheel, which is never written; or a patch of ours does not lead to the blob
            id that its series states.
        MissingRequirement: a merge was asked for and there is no git.
    """
    refuse_wheels(action, statuses)
    _refuse(action, statuses, merge)
    sources: list[Step] = []
    keep: list[Step] = []
    folders: set[Path] = set()
    for location in sorted({status.target.location for status in statuses}):
        here = [
            bookkeeping.Package(status, *_source_steps(action, status))
            for status in statuses
            if status.target.location == location
        ]
        sources += [step for package in here for step in package.steps if step.changes]
        keep += bookkeeping.steps(action, location, here)
        folders |= {folder for package in here for folder in bookkeeping.folders(package)}
    return Plan(action, tuple(sources), tuple(step for step in keep if step.changes), tuple(sorted(folders)))


def refuse_wheels(action: Action, statuses: Sequence[TargetStatus]) -> None:
    """Raise UsageError when one of the targets is a wheel."""
    for status in statuses:
        if status.target.kind == "wheel":
            raise UsageError(
                f"{status.target.location}: a wheel is only read, by verify, status, diff and lint",
                f"unpack it, and {action} with --target DIR",
            )


def _refuse(action: Action, statuses: Sequence[TargetStatus], merge: bool) -> None:
    for status in statuses:
        target = status.target
        here = f"{target.package} {target.version} in {target.location}"
        if status.series is None:
            raise CheckFailed(
                f"{here}: no patches for this version", "vimectl patch list shows the versions that have some"
            )
        if status.drifted and not merge:
            raise CheckFailed(
                f"{here} was edited, nothing was changed:\n{edits(status)}",
                f"undo the edits, or reinstall {target.package}, then vimectl patch {action} again;"
                f" or let git merge the edits: vimectl patch {action} --merge",
            )


def _source_steps(action: Action, status: TargetStatus) -> tuple[list[Step], dict[str, bookkeeping.Edited]]:
    """One step for each file of the series, also for those that are as wanted already; and which of them are
    merged with somebody's edits."""
    assert status.series is not None
    series, location = status.series, status.target.location
    steps: list[Step] = []
    merged: dict[str, bookkeeping.Edited] = {}
    taken = set(status.having("upstream")) - set(status.drifted)
    for path, chain in series.chains.items():
        if path in taken:
            continue  # upstream has it; the file is not one of ours
        recorded = status.entry.file(path) if status.entry else None
        if path in status.drifted:
            from vimectl.patches.merge import edited

            both = edited(status, path)
            wanted = both.patched if action == "apply" else both.unpatched
            merged[path] = bookkeeping.Edited(both.unpatched, chain[-1])
        elif recorded and recorded.merged and path in status.having("merged"):
            current = tree.content(location, path)
            before = content.kept(status.target, path, recorded.before)
            wanted = current if action == "apply" else before
            merged[path] = bookkeeping.Edited(before, recorded.merged)
        else:
            released = content.released(status.target, series, path)
            wanted = content.stages(series, path, released)[-1] if action == "apply" else released
        git = series.modes[path][-1 if action == "apply" else 0]
        mode = None if wanted is None else _mode(action, status, path, git)
        steps.append(Step(location, path, tree.content(location, path), wanted, mode))
    for file in status.leftover:
        released = content.kept(status.target, file.path, file.before)
        steps.append(Step(location, file.path, tree.content(location, file.path), released, file.mode))
    return steps, merged


def _mode(action: Action, status: TargetStatus, path: str, git: str | None) -> int | None:
    """The ``st_mode`` to set; None: that which the file has, or any new file. ``git`` is the mode wanted."""
    has = status.found[path].mode
    if has and git in (None, has):
        return None
    recorded = status.entry.file(path) if status.entry else None
    if action == "revert" and recorded and recorded.mode:
        return recorded.mode
    if git is None:
        return None
    return permissions((status.target.location / path).lstat().st_mode if has else fresh_mode(), git)
