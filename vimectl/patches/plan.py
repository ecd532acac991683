"""Plan an apply or a revert as a value: `--dry-run` prints it, the transaction executes it.

A plan has steps for the sources, and for what goes with them: RECORD, the applied state, and copies of the
original contents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vime_runtime.spec.errors import CheckFailed

from vimectl import __version__
from vimectl.patches import applied_state, content
from vimectl.patches.applied_state import AppliedFile, AppliedSeries
from vimectl.patches.blobs import blob_id, content_at, id_of, new_file_mode, with_git_mode
from vimectl.patches.distribution import update_record
from vimectl.patches.edits import diff_of_edits, merge_edits
from vimectl.patches.series import Series
from vimectl.patches.state import TargetStatus
from vimectl.patches.target import read_file
from vimectl.patches.transaction import FileStep
from vimectl.util import source_date_epoch

PatchAction = Literal["apply", "revert"]


@dataclass(frozen=True)
class PatchPlan:
    """``sources`` change the packages; ``bookkeeping`` keeps RECORD files and the applied state up to date.

    ``folders`` exist only for created files, and are removed with the last of these.
    """

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


@dataclass(frozen=True)
class _PackageChange:
    """The change of one package: a step for each file.

    ``edited`` has by path the contents of the edited files among them without the patches.
    """

    status: TargetStatus
    steps: list[FileStep]
    edited: dict[str, bytes | None]

    @property
    def name(self) -> str:
        return self.status.target.package

    @property
    def series(self) -> Series:
        assert self.status.series is not None
        return self.status.series

    def folders(self) -> set[Path]:
        """Return the folders of the target that exist, or will, only for created files."""
        location, applied = self.status.target.location, self.status.applied
        return {location / path for path in (*(applied.folders if applied else ()), *self.missing_folders())}

    def missing_folders(self) -> list[str]:
        """Return the folders that creating files will create."""
        return sorted(
            {
                str(parent)
                for step in self.steps
                if step.after is not None
                for parent in Path(step.path).parents
                if not (step.location / parent).exists()
            }
        )


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
        bookkeeping += [step for step in _bookkeeping_steps(action, location, changes) if step.changes]
    return PatchPlan(tuple(sources), tuple(bookkeeping), tuple(sorted(folders)))


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


def _package_change(action: PatchAction, status: TargetStatus) -> _PackageChange:
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
    return _PackageChange(status, steps, edited)


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


def _bookkeeping_steps(action: str, location: Path, changes: Sequence[_PackageChange]) -> list[FileStep]:
    """Return the steps for RECORD and bookkeeping of a target directory, also those that change nothing."""
    names = {change.name for change in changes}
    applied = {name: entry for name, entry in applied_state.read(location).items() if name not in names}
    originals: dict[str, bytes] = {}
    steps = []
    for change in changes:
        record = _record_step(action, change)
        steps += [record] if record else []
        if action == "apply":
            applied[change.name] = _applied_series(change, record)
            originals |= _originals(change, record)
    steps.append(_step(location, applied_state.state_path(location), applied_state.dump(applied)))
    steps += _original_steps(location, applied, originals)
    work_tree = any(change.status.target.kind in ("git", "editable") for change in changes)
    ignore = applied_state.bookkeeping_folder(location) / ".gitignore"
    if work_tree or ignore.exists():
        steps.append(_step(location, ignore, b"*\n" if applied else None))
    return steps


def _record_step(action: str, change: _PackageChange) -> FileStep | None:
    """Return the step for RECORD. A revert restores the original RECORD unless it was changed since."""
    target, applied = change.status.target, change.status.applied
    if not target.record:
        return None
    current = base = target.record.read_bytes()
    if applied and applied.record and applied.record.after == blob_id(current):
        base = applied_state.original(target.location, applied.record.before or "") or current
    if action == "apply" or base is current:
        base = update_record(base, {step.path: step.after for step in change.steps})
    location = target.record.parent.parent
    return FileStep(location, str(target.record.relative_to(location)), current, base)


def _applied_series(change: _PackageChange, record_step: FileStep | None) -> AppliedSeries:
    old = change.status.applied
    files = tuple(_applied_file(change, step) for step in change.steps if step.path in change.series.chains)
    folders = tuple(sorted({*(old.folders if old else ()), *change.missing_folders()}))
    record = _applied_record(record_step, old.record if old else None)
    name = change.series.name
    if old and (old.series, old.files, old.folders, old.record) == (name, files, folders, record):
        return old
    now = source_date_epoch.now().isoformat()
    return AppliedSeries(name, now, __version__, files, folders, record)


def _applied_record(step: FileStep | None, old: AppliedFile | None) -> AppliedFile | None:
    if step is None:
        return None
    before, after = id_of(step.before), id_of(step.after)
    if before == after:
        return old if old and old.after == after else None
    if old and old.after == before:
        before = old.before
    return AppliedFile(step.path, before, after)


def _applied_file(change: _PackageChange, step: FileStep) -> AppliedFile:
    status, series = change.status, change.series
    chain = series.chains[step.path]
    if step.path in change.edited:
        before, after = id_of(change.edited[step.path]), id_of(step.after)
        return AppliedFile(step.path, before, after, merged=chain[-1], released=chain[0])
    recorded = status.applied_file(step.path)
    mode = recorded.mode if recorded else None
    if series.position(step.path, status.found[step.path]) == 0:
        # The original mode is lost once the file is removed or gets another mode.
        lost = step.before is not None and (step.after is None or step.mode is not None)
        mode = status.found[step.path].st_mode if lost else None
    return AppliedFile(step.path, chain[0], chain[-1], mode)


def _originals(change: _PackageChange, record_step: FileStep | None) -> dict[str, bytes]:
    """Return by blob id every content that a later revert may have to restore."""
    found = [
        content.released(change.status.target, change.series, step.path)
        for step in change.steps
        if step.path in change.series.chains
    ]
    found += change.edited.values()
    found.append(record_step.before if record_step else None)
    return {blob_id(one): one for one in found if one is not None}


def _original_steps(
    location: Path, applied: dict[str, AppliedSeries], contents: dict[str, bytes]
) -> list[FileStep]:
    """Save the originals that the applied state then needs, and remove the others."""
    files = [file for one in applied.values() for file in (*one.files, one.record) if file]
    needed = {blob for file in files for blob in (file.before, file.released)}
    folder = applied_state.original_folder(location)
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    removed = [_step(location, folder / blob, None) for blob in sorted(present - needed)]
    new = sorted(blob for blob in needed - present if blob in contents)
    return removed + [_step(location, folder / blob, contents[blob]) for blob in new]


def _step(location: Path, path: Path, after: bytes | None) -> FileStep:
    return FileStep(location, str(path.relative_to(location)), content_at(path), after)
