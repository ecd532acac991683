"""Plan the other steps of a change of sources: RECORD, the applied state, and copies of originals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vimectl import __version__
from vimectl.patches import applied_state, content
from vimectl.patches.applied_state import AppliedFile, AppliedSeries
from vimectl.patches.blobs import blob_id, content_at, id_of
from vimectl.patches.distribution import update_record
from vimectl.patches.series import Series
from vimectl.patches.state import TargetStatus
from vimectl.patches.transaction import FileStep
from vimectl.util import source_date_epoch


@dataclass(frozen=True)
class PackageChange:
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


def bookkeeping_steps(action: str, location: Path, changes: Sequence[PackageChange]) -> list[FileStep]:
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


def _record_step(action: str, change: PackageChange) -> FileStep | None:
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


def _applied_series(change: PackageChange, record_step: FileStep | None) -> AppliedSeries:
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


def _applied_file(change: PackageChange, step: FileStep) -> AppliedFile:
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


def _originals(change: PackageChange, record_step: FileStep | None) -> dict[str, bytes]:
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
