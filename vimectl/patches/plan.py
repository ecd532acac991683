"""Plan an apply or a revert as a value: `--dry-run` prints it, the transaction executes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vime_runtime.spec.errors import CheckFailed

from vimectl.patches import content
from vimectl.patches.blobs import id_of, new_file_mode, with_git_mode
from vimectl.patches.bookkeeping import PackageChange, bookkeeping_steps
from vimectl.patches.edits import diff_of_edits, merge_edits
from vimectl.patches.state import TargetStatus
from vimectl.patches.target import read_file
from vimectl.patches.transaction import FileStep

PatchAction = Literal["apply", "revert"]


@dataclass(frozen=True)
class PatchPlan:
    """``sources`` change the packages; ``bookkeeping`` keeps RECORD files and the applied state up to date.

    ``folders`` exist only for created files, and are removed with the last of these.
    """

    action: PatchAction
    sources: tuple[FileStep, ...]
    bookkeeping: tuple[FileStep, ...]
    folders: tuple[Path, ...] = ()

    @property
    def steps(self) -> tuple[FileStep, ...]:
        return self.sources + self.bookkeeping

    def changed(self) -> list[dict[str, Any]]:
        """Return the changed files for ``changed`` in the JSON output: path and blob ids."""
        return [
            {"path": str(step.location / step.path), "before": id_of(step.before), "after": id_of(step.after)}
            for step in self.sources
        ]


def make_plan(action: PatchAction, statuses: Sequence[TargetStatus], merge: bool = False) -> PatchPlan:
    """Plan to bring every target to ``applied`` or back to ``pristine``; empty when all are there already.

    ``merge``: merge the user's edits with the patches (see ``edits.merge_edits``) instead of refusing.

    Raises:
        CheckFailed: a target has no series, or an edited file; the message shows the difference.
        UsageError: the result of a patch does not have the blob id in its series.
        MissingRequirement: merging needs git, which is not installed.
    """
    _refuse_unsupported(action, statuses, merge)
    sources: list[FileStep] = []
    bookkeeping: list[FileStep] = []
    folders: set[Path] = set()
    for location in sorted({status.target.location for status in statuses}):
        changes = [
            _package_change(action, status) for status in statuses if status.target.location == location
        ]
        for change in changes:
            sources += [step for step in change.steps if step.changes]
            folders |= change.folders()
        bookkeeping += [step for step in bookkeeping_steps(action, location, changes) if step.changes]
    return PatchPlan(action, tuple(sources), tuple(bookkeeping), tuple(sorted(folders)))


def _refuse_unsupported(action: PatchAction, statuses: Sequence[TargetStatus], merge: bool) -> None:
    for status in statuses:
        target = status.target
        name = f"{target.package} {target.version} in {target.location}"
        if status.series is None:
            hint = "vimectl patch list shows the versions that have some"
            raise CheckFailed(f"{name}: no patches for this version", hint)
        if status.drifted and not merge:
            raise CheckFailed(
                f"{name} was edited, nothing was changed:\n{diff_of_edits(status)}",
                f"undo the edits, or reinstall {target.package}, then vimectl patch {action} again;"
                f" or let git merge the edits: vimectl patch {action} --merge",
            )


def _package_change(action: PatchAction, status: TargetStatus) -> PackageChange:
    """Return a step for each file of the series, also for those that need no change."""
    assert status.series is not None
    series, location = status.series, status.target.location
    steps: list[FileStep] = []
    edited: dict[str, bytes | None] = {}
    drifted, merged = status.drifted, status.files_in("merged")
    upstream = set(status.files_in("upstream")) - set(drifted)
    for path in series.chains:
        if path in upstream:
            continue  # the package itself has the changes
        recorded = status.applied_file(path)
        if path in drifted:
            edited[path], patched = merge_edits(status, path)
            wanted = patched if action == "apply" else edited[path]
        elif recorded and path in merged:
            edited[path] = content.kept_copy(status.target, path, recorded.before)
            wanted = read_file(location, path) if action == "apply" else edited[path]
        else:
            released = content.released(status.target, series, path)
            wanted = content.stages(series, path, released)[-1] if action == "apply" else released
        git_mode = series.modes[path][-1 if action == "apply" else 0]
        mode = None if wanted is None else _mode(action, status, path, git_mode)
        steps.append(FileStep(location, path, read_file(location, path), wanted, mode))
    for file in status.leftover:
        released = content.kept_copy(status.target, file.path, file.before)
        steps.append(FileStep(location, file.path, read_file(location, file.path), released, file.mode))
    return PackageChange(status, steps, edited)


def _mode(action: PatchAction, status: TargetStatus, path: str, wanted: str | None) -> int | None:
    """Return the ``st_mode`` to set for the git mode ``wanted``; None: no change, or that of a new file."""
    found = status.found[path]
    if found.mode and wanted in (None, found.mode):
        return None
    recorded = status.applied_file(path)
    if action == "revert" and recorded and recorded.mode:
        return recorded.mode
    if wanted is None:
        return None
    return with_git_mode(found.st_mode or new_file_mode(), wanted)
