"""What an apply or a revert would change, as a value: `--dry-run` prints it, the transaction executes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from vimectl import __version__
from vimectl.errors import CheckFailed
from vimectl.patching import content, ledger, record
from vimectl.patching.blobs import blob_id, content_at
from vimectl.patching.difference import edits
from vimectl.patching.series import PatchedFile
from vimectl.patching.state import TargetStatus
from vimectl.patching.transaction import Step

Action = Literal["apply", "revert"]


@dataclass(frozen=True)
class Plan:
    """``sources`` change the packages; ``upkeep`` keeps RECORD files and the bookkeeping in step."""

    action: Action
    sources: tuple[Step, ...]
    upkeep: tuple[Step, ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        return self.sources + self.upkeep

    def changed(self) -> list[dict[str, Any]]:
        """The changed files as the contract's ``changed``: path and blob ids."""
        return [
            {
                "path": str(step.location / step.path),
                "before": None if step.before is None else blob_id(step.before),
                "after": None if step.after is None else blob_id(step.after),
            }
            for step in self.sources
        ]


def make(action: Action, statuses: Sequence[TargetStatus]) -> Plan:
    """Plan to bring every target to ``applied`` or back to ``pristine``; empty when all are there already.

    Raises:
        CheckFailed: a target has no series, or a file that somebody edited; the message shows the difference.
        BadInput: a patch of ours does not lead to the blob id that its series states.
    """
    _refuse_drifted(action, statuses)
    sources: list[Step] = []
    upkeep: list[Step] = []
    for location in sorted({status.target.location for status in statuses}):
        here = [status for status in statuses if status.target.location == location]
        steps = [step for status in here for step in _source_steps(action, status)]
        sources += [step for step in steps if step.before != step.after]
        upkeep += _record_steps(here, steps)
        upkeep += _ledger_steps(action, location, here)
    return Plan(action, tuple(sources), tuple(step for step in upkeep if step.before != step.after))


def _refuse_drifted(action: Action, statuses: Sequence[TargetStatus]) -> None:
    for status in statuses:
        target = status.target
        if status.series is None:
            raise CheckFailed(
                f"{target.package} {target.version} in {target.location}: no patches for this version",
                "vimectl patch list shows the versions that have some",
            )
        if status.drifted:
            raise CheckFailed(
                f"{target.package} {target.version} in {target.location} was edited, nothing was changed:\n"
                + edits(status),
                f"undo the edits, or reinstall {target.package}, then vimectl patch {action} again",
            )


def _source_steps(action: Action, status: TargetStatus) -> list[Step]:
    """One step for each file of the series, also for those that are as wanted already."""
    assert status.series is not None
    location = status.target.location
    steps = []
    for path in status.series.chains:
        released = content.released(status.target, status.series, path)
        wanted = content.stages(status.series, path, released)[-1] if action == "apply" else released
        steps.append(Step(location, path, content_at(location / path), wanted))
    for file in status.leftover:
        released = content.kept(status.target, file.path, file.before)
        steps.append(Step(location, file.path, content_at(location / file.path), released))
    return steps


def _record_steps(statuses: Sequence[TargetStatus], sources: Sequence[Step]) -> list[Step]:
    contents = {step.path: step.after for step in sources if step.after is not None}
    steps = []
    for path in sorted({status.target.record for status in statuses if status.target.record}):
        before = path.read_bytes()
        location = path.parent.parent
        steps.append(Step(location, str(path.relative_to(location)), before, record.update(before, contents)))
    return steps


def _ledger_steps(action: Action, location: Path, statuses: Sequence[TargetStatus]) -> list[Step]:
    """The ledger with the entries of these packages made or dropped, and the originals it then needs."""
    old = ledger.read(location)
    new = {name: entry for name, entry in old.items() if name not in {s.target.package for s in statuses}}
    if action == "apply":
        for status in statuses:
            new[status.target.package] = _entry(status, old.get(status.target.package))
    steps = [_bookkeeping(location, ledger.ledger_path(location), ledger.dump(new))]
    needed = {file.before for entry in new.values() for file in entry.files if file.before}
    folder = ledger.folder(location) / "original"
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    for blob in sorted(present - needed):
        steps.append(_bookkeeping(location, folder / blob, None))
    for status in statuses if action == "apply" else ():
        assert status.series is not None
        for path, chain in status.series.chains.items():
            if chain[0] and chain[0] not in present:
                released = content.released(status.target, status.series, path)
                steps.append(_bookkeeping(location, folder / chain[0], released))
    return steps


def _entry(status: TargetStatus, old: ledger.Entry | None) -> ledger.Entry:
    assert status.series is not None
    chains = status.series.chains
    files = [PatchedFile(path=path, before=chain[0], after=chain[-1]) for path, chain in chains.items()]
    if old and old.series == status.series.name and old.files == files:
        return old
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return ledger.Entry(series=status.series.name, applied=now, vimectl=__version__, files=files)


def _bookkeeping(location: Path, path: Path, after: bytes | None) -> Step:
    return Step(location, str(path.relative_to(location)), content_at(path), after)
