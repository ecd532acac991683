"""What goes with a change of sources: RECORD stays true, the ledger tells of it, originals are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vimectl import __version__
from vimectl.patches import applied_state, content, record
from vimectl.patches.blobs import blob_id, content_at, id_of
from vimectl.patches.state import TargetStatus
from vimectl.patches.transaction import Step
from vimectl.util import source_date_epoch


@dataclass(frozen=True)
class Edited:
    """A file with somebody's edits: what it is without the patches, and the blob id of the patched content
    that they are merged with."""

    unpatched: bytes | None
    patched: str | None


@dataclass(frozen=True)
class Package:
    """What happens to one package: a step for each file, and which of them are merged with edits."""

    status: TargetStatus
    steps: list[Step]
    edited: dict[str, Edited]

    @property
    def name(self) -> str:
        return self.status.target.package


def steps(action: str, location: Path, packages: Sequence[Package]) -> list[Step]:
    """Return the steps for RECORD and bookkeeping of one target directory, also those that change nothing."""
    old = applied_state.read(location)
    new = {name: entry for name, entry in old.items() if name not in {one.name for one in packages}}
    records = [_record(action, one) for one in packages]
    originals: dict[str, bytes] = {}
    for one, its_record in zip(packages, records, strict=True):
        if action == "apply":
            new[one.name] = _entry(one, its_record)
            originals |= _originals(one, its_record)
    found = [step for step in records if step]
    found.append(_bookkeeping(location, applied_state.ledger_path(location), applied_state.dump(new)))
    found += _kept(location, new, originals)
    work_tree = any(one.status.target.kind in ("git", "editable") for one in packages)
    ignore = applied_state.folder(location) / ".gitignore"
    if work_tree or ignore.exists():
        found.append(_bookkeeping(location, ignore, b"*\n" if new else None))
    return found


def folders(package: Package) -> set[Path]:
    """Return the folders of the target that exist, or will, for created files alone."""
    location = package.status.target.location
    entry = package.status.entry
    return {location / path for path in (*(entry.folders if entry else ()), *_missing(package))}


def _missing(package: Package) -> list[str]:
    """The folders that creating files will make."""
    found = set()
    for step in package.steps:
        if step.after is not None:
            parents = Path(step.path).parents
            found |= {str(parent) for parent in parents if not (step.location / parent).exists()}
    return sorted(found)


def _record(action: str, package: Package) -> Step | None:
    """The step for the RECORD: on revert the very one that was there, unless it was changed since."""
    target, entry = package.status.target, package.status.entry
    if not target.record:
        return None
    current = base = target.record.read_bytes()
    if entry and entry.record and entry.record.after == blob_id(current):
        base = applied_state.original(target.location, entry.record.before) or current
    changed = {step.path: step.after for step in package.steps}
    if action == "apply" or base is current:
        base = record.update(base, changed)
    location = target.record.parent.parent
    return Step(location, str(target.record.relative_to(location)), current, base)


def _entry(package: Package, its_record: Step | None) -> applied_state.Entry:
    status, old = package.status, package.status.entry
    assert status.series is not None
    files = tuple(_file(package, step) for step in package.steps if step.path in status.series.chains)
    made = tuple(sorted({*(old.folders if old else ()), *_missing(package)}))
    stated = None
    if its_record and its_record.before != its_record.after:
        before = its_record.before
        stated = applied_state.Record(its_record.path, str(id_of(before)), str(id_of(its_record.after)))
        if old and old.record and old.record.after == id_of(before):
            stated = applied_state.Record(its_record.path, old.record.before, str(id_of(its_record.after)))
    elif its_record and old and old.record and old.record.after == id_of(its_record.after):
        stated = old.record
    same = old and (old.series, old.files, old.folders, old.record) == (
        status.series.name,
        files,
        made,
        stated,
    )
    if old and same:
        return old
    return applied_state.Entry(
        status.series.name, source_date_epoch.now().isoformat(), __version__, files, made, stated
    )


def _file(package: Package, step: Step) -> applied_state.File:
    status = package.status
    assert status.series is not None
    chain = status.series.chains[step.path]
    if edited := package.edited.get(step.path):
        before, after = id_of(edited.unpatched), id_of(step.after)
        return applied_state.File(step.path, before, after, merged=edited.patched, released=chain[0])
    recorded = status.entry.file(step.path) if status.entry else None
    mode = recorded.mode if recorded else None
    if status.series.position(step.path, status.found[step.path]) == 0:
        # What the mode was cannot be told once the file is gone, or has another.
        goes = step.before is not None and (step.after is None or step.mode is not None)
        mode = (step.location / step.path).lstat().st_mode if goes else None
    return applied_state.File(step.path, chain[0], chain[-1], mode)


def _originals(package: Package, its_record: Step | None) -> dict[str, bytes]:
    """Every content that the ledger may have to give back, by blob id."""
    status = package.status
    assert status.series is not None
    found = [
        content.released(status.target, status.series, step.path)
        for step in package.steps
        if step.path in status.series.chains
    ]
    found += [edited.unpatched for edited in package.edited.values()]
    found.append(its_record.before if its_record else None)
    return {blob_id(one): one for one in found if one is not None}


def _kept(location: Path, entries: dict[str, applied_state.Entry], contents: dict[str, bytes]) -> list[Step]:
    """Put aside the originals that the ledger then needs, and drop the others."""
    needed = {
        blob for entry in entries.values() for file in entry.files for blob in (file.before, file.released)
    }
    needed |= {entry.record.before for entry in entries.values() if entry.record}
    folder = applied_state.folder(location) / "original"
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    drop = [_bookkeeping(location, folder / blob, None) for blob in sorted(present - needed)]
    fresh = sorted(blob for blob in needed - present if blob in contents)
    return drop + [_bookkeeping(location, folder / blob, contents[blob]) for blob in fresh]


def _bookkeeping(location: Path, path: Path, after: bytes | None) -> Step:
    return Step(location, str(path.relative_to(location)), content_at(path), after)
