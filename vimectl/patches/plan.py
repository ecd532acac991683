"""Plan an apply or a revert as a value: `--dry-run` prints it, the transaction executes it.

A plan has steps for the sources, and for what goes with them: RECORD, the applied state, and copies of
contents.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from vime_runtime.spec.errors import CheckFailed

from vimectl import __version__
from vimectl.patches import applied_state, content
from vimectl.patches.applied_state import OBJECTS, STATE, AppliedSeries, Change
from vimectl.patches.blobs import FileId, blob_id, id_of, new_file_mode, with_git_mode
from vimectl.patches.distribution import update_record
from vimectl.patches.patchfile.names import parent_folders
from vimectl.patches.series import Series
from vimectl.patches.state import TargetStatus
from vimectl.patches.target import TargetFiles
from vimectl.patches.target_tree import FOLDER, content_in, open_tree, read_with_status
from vimectl.patches.transaction import FileStep
from vimectl.util import source_date_epoch
from vimectl.util.directory_tree import DirectoryTree

PatchAction = Literal["apply", "revert"]


class PatchMoves(NamedTuple):
    """The patches of a package that a plan reverts, from the top, and then applies, from the bottom."""

    package: str
    reverted: tuple[str, ...]
    applied: tuple[str, ...]


class PatchPlan(NamedTuple):
    """``sources`` change the packages; ``bookkeeping`` keeps RECORD files and the applied state up to date.

    ``folders`` exist only for created files, and are removed with the last of these.
    """

    sources: tuple[FileStep, ...]
    bookkeeping: tuple[FileStep, ...]
    folders: tuple[Path, ...] = ()
    moves: tuple[PatchMoves, ...] = ()

    @property
    def steps(self) -> tuple[FileStep, ...]:
        return self.sources + self.bookkeeping

    def changed(self) -> list[dict[str, Any]]:
        """Return the changed files for ``changed`` in the JSON output: path and blob ids."""
        return [
            {"path": str(step.location / step.path), "before": id_of(step.before), "after": id_of(step.after)}
            for step in self.sources
        ]


class _PackageChange(NamedTuple):
    """The change of one package: a step for each file.

    ``edited`` has by path the contents of the files without the patches in which edits are merged.
    """

    status: TargetStatus
    series: Series
    steps: list[FileStep]
    edited: dict[str, bytes | None]

    @property
    def name(self) -> str:
        return self.status.target.package

    def folders(self) -> set[Path]:
        """Return the folders of the target that exist, or will, only for created files."""
        location, applied = self.status.target.location, self.status.applied
        return {location / path for path in (*(applied.folders if applied else ()), *self.missing_folders())}

    def missing_folders(self) -> list[str]:
        """Return the folders that creating files will create."""
        paths = [step.path for step in self.steps if step.after is not None]
        folders = {folder for path in paths for folder in parent_folders(path)}
        with open_tree(self.status.target.location) as tree:
            return sorted(folder for folder in folders if tree.lstat(folder) is None)


def make_plan(action: PatchAction, statuses: Sequence[TargetStatus], merge: bool = False) -> PatchPlan:
    """Plan to bring every target to ``applied`` or back to ``pristine``; empty when all are there already.

    Patches that were applied and are not in the series any more are reverted, also those of another series.
    ``merge``: merge the user's edits with the patches (see ``edits.merge_edits``) instead of refusing.

    Raises:
        CheckFailed: no series fits a target, or a file was edited; the message shows the difference.
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
    moves = (_moves(action, status) for status in statuses)
    kept = tuple(one for one in moves if one.reverted or one.applied)
    return PatchPlan(tuple(sources), tuple(bookkeeping), tuple(sorted(folders)), kept)


def _refuse_unsupported(action: PatchAction, statuses: Sequence[TargetStatus], merge: bool) -> None:
    for status in statuses:
        target = status.target
        name = f"{target.package} {target.version} in {target.location}"
        if status.series is None:
            raise CheckFailed(f"{name}: {status.note}", status.hint)
        if status.drifted and not merge:
            from vimectl.patches.edits import diff_of_edits  # loads what merges: only for edited files

            raise CheckFailed(
                f"{name} was edited, nothing was changed:\n{diff_of_edits(status)}",
                f"keep the edits as a patch: vimectl patch save NAME {target.package};"
                f" or let git merge them: vimectl patch {action} --merge;"
                f" or undo them, or reinstall {target.package}",
            )


def _moves(action: PatchAction, status: TargetStatus) -> PatchMoves:
    assert status.series is not None
    before = status.applied_ids()
    after = [(p.id, blob_id(p.text)) for p in status.series.patches] if action == "apply" else []
    kept = 0
    for one, other in zip(before, after, strict=False):
        if one[1] != other[1]:
            break
        kept += 1
    reverted = tuple(patch_id for patch_id, _ in reversed(before[kept:]))
    return PatchMoves(status.target.package, reverted, tuple(patch_id for patch_id, _ in after[kept:]))


def _package_change(action: PatchAction, status: TargetStatus) -> _PackageChange:
    """Return a step for each file of the series, also for those that need no change."""
    with TargetFiles(status.target.location) as files:
        return _changed_files(action, status, files)


def _changed_files(action: PatchAction, status: TargetStatus, files: TargetFiles) -> _PackageChange:
    assert status.series is not None
    series, applied, target = status.series, status.applied, status.target
    steps: list[FileStep] = []
    edited: dict[str, bytes | None] = {}
    drifted, merged = status.drifted, status.files_in("merged")
    upstream = set(status.files_in("upstream")) - set(drifted)
    for path in series.chains:
        if path in upstream:
            continue  # the package itself has the changes
        if path in drifted:
            from vimectl.patches.edits import merge_edits

            edited[path], patched = merge_edits(status, path)
            wanted = patched if action == "apply" else edited[path]
        elif applied and path in merged:
            edited[path] = content.kept_copy(target, path, applied.merged[path].before)
            wanted = files.read(path) if action == "apply" else edited[path]
        else:
            released = content.released(target, series, path, applied)
            wanted = content.stages(series, path, released)[-1] if action == "apply" else released
        git_mode = series.modes[path][-1 if action == "apply" else 0]
        mode = None if wanted is None else _mode(action, status, path, git_mode)
        steps.append(FileStep(target.location, path, files.read(path), wanted, mode))
    for path in status.leftover:
        assert applied is not None
        found = files.id(path)
        position = applied.position(path, found) or 0
        current = files.read(path)
        released = content.rewind(applied.series, path, current, position)
        mode = _original_mode(applied, path, found, applied.series.modes[path][0])
        steps.append(
            FileStep(target.location, path, current, released, mode if released is not None else None)
        )
    return _PackageChange(status, series, steps, edited)


def _mode(action: PatchAction, status: TargetStatus, path: str, wanted: str | None) -> int | None:
    """Return the ``st_mode`` to set for the git mode ``wanted``; None: no change, or that of a new file."""
    found, applied = status.found[path], status.applied
    if wanted is None and applied and path in applied.series.chains:
        # The patches before may have set a mode that the series does not.
        return _original_mode(applied, path, found, applied.series.modes[path][0])
    if action == "revert" and applied:
        return _original_mode(applied, path, found, wanted)
    if wanted is None or found.mode == wanted:
        return None
    return with_git_mode(found.st_mode or new_file_mode(), wanted)


def _original_mode(applied: AppliedSeries, path: str, found: FileId, wanted: str | None) -> int | None:
    """Return the ``st_mode`` to set for a file that is reverted to git's mode ``wanted``; None: no change."""
    if found.mode and wanted in (None, found.mode):
        return None
    if path in applied.modes:
        return applied.modes[path]
    return None if wanted is None else with_git_mode(found.st_mode or new_file_mode(), wanted)


def _bookkeeping_steps(action: str, location: Path, changes: Sequence[_PackageChange]) -> list[FileStep]:
    """Return the steps for RECORD and bookkeeping of a target directory, also those that change nothing."""
    names = {change.name for change in changes}
    applied = {name: entry for name, entry in applied_state.read(location).items() if name not in names}
    contents: dict[str, bytes] = {}
    steps = []
    for change in changes:
        record = _record_step(action, change)
        steps += [record] if record else []
        if action == "apply" and change.series.patches:
            applied[change.name] = _applied_series(change, record)
            contents |= _contents(change, record)
    written = {change.name: change.series for change in changes}
    needed = {b for name, one in applied.items() for b in one.objects(written.get(name) or one.series)}
    work_tree = any(change.status.target.kind in ("git", "editable") for change in changes)
    ignore = f"{FOLDER}/.gitignore"
    with open_tree(location) as tree:
        steps.append(_step(tree, STATE, applied_state.dump(applied)))
        steps += _object_steps(tree, needed, contents)
        if work_tree or tree.lstat(ignore) is not None:
            steps.append(_step(tree, ignore, b"*\n" if applied else None))
    return steps


def _record_step(action: str, change: _PackageChange) -> FileStep | None:
    """Return the step for RECORD. A revert restores the original RECORD unless it was changed since."""
    target, applied = change.status.target, change.status.applied
    if not target.record:
        return None
    location = target.record.parent.parent
    path = str(target.record.relative_to(location))
    with open_tree(location) as tree:
        current, status = read_with_status(tree, path)
    if current is None or status is None or stat.S_ISLNK(status.st_mode):
        hint = "install the package again, with copies instead of links (uv: --link-mode copy)"
        raise CheckFailed(f"{target.record} is not a file", hint)
    base = current
    if applied and applied.record and applied.record.after == blob_id(current):
        base = applied_state.read_object(target.location, applied.record.before or "") or current
    if action == "apply" or base is current:
        base = update_record(base, {step.path: step.after for step in change.steps})
    return FileStep(location, path, current, base)


def _applied_series(change: _PackageChange, record_step: FileStep | None) -> AppliedSeries:
    old, series, location = change.status.applied, change.series, change.status.target.location
    after = {step.path: id_of(step.after) for step in change.steps}
    new = AppliedSeries(
        location,
        series.name,
        tuple((patch.id, blob_id(patch.text)) for patch in series.patches),
        old.time if old else "",
        __version__,
        {path: mode for path in series.chains if (mode := _lost_mode(change, path)) is not None},
        {path: Change(id_of(before), after[path]) for path, before in change.edited.items()},
        tuple(sorted({*(old.folders if old else ()), *change.missing_folders()})),
        record_step.path if record_step else "",
        _applied_record(record_step, old.record if old else None),
    )
    return new if new == old else new._replace(time=source_date_epoch.now().isoformat())


def _lost_mode(change: _PackageChange, path: str) -> int | None:
    """Return the original ``st_mode`` of a file that the patches remove or give another mode; else None."""
    status = change.status
    step = next((step for step in change.steps if step.path == path), None)
    found = status.found[path]
    if step and change.series.position(path, found) == 0:
        lost = step.before is not None and (step.after is None or step.mode is not None)
        return found.st_mode if lost else None
    return status.applied.modes.get(path) if status.applied else None


def _applied_record(step: FileStep | None, old: Change | None) -> Change | None:
    if step is None:
        return None
    before, after = id_of(step.before), id_of(step.after)
    if before == after:
        return old if old and old.after == after else None
    return Change(old.before if old and old.after == before else before, after)


def _contents(change: _PackageChange, record_step: FileStep | None) -> dict[str, bytes]:
    """Return by blob id every content that later commands need."""
    status, series = change.status, change.series
    paths = {step.path for step in change.steps} & series.chains.keys()
    found = [content.released(status.target, series, path, status.applied) for path in sorted(paths)]
    found += change.edited.values()
    found.append(record_step.before if record_step else None)
    found += [patch.text for patch in series.patches]
    return {blob_id(one): one for one in found if one is not None}


def _object_steps(tree: DirectoryTree, needed: set[str], contents: dict[str, bytes]) -> list[FileStep]:
    """Keep the contents that the applied state then needs, and remove the others."""
    present = set(tree.names(OBJECTS)) if tree.lstat(OBJECTS) else set()
    removed = [_step(tree, f"{OBJECTS}/{blob}", None) for blob in sorted(present - needed)]
    new = sorted(blob for blob in needed - present if blob in contents)
    return removed + [_step(tree, f"{OBJECTS}/{blob}", contents[blob]) for blob in new]


def _step(tree: DirectoryTree, path: str, after: bytes | None) -> FileStep:
    return FileStep(tree.root, path, content_in(tree, path), after)
