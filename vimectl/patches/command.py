"""Run the patch commands: find the targets of a stack, classify them, and change them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vime_runtime.spec.errors import MissingRequirement, UsageError, unknown

from vimectl.patches import series, target, transaction_journal
from vimectl.patches.series import Series
from vimectl.patches.state import TargetStatus, classify
from vimectl.patches.target import PatchTarget
from vimectl.stacks.catalog import load_summary
from vimectl.stacks.detection import detect_stack
from vimectl.stacks.versions import matches
from vimectl.util.host import Host

if TYPE_CHECKING:
    from vimectl.patches.plan import PatchAction, PatchPlan


@dataclass(frozen=True)
class PatchOutcome:
    """The plan of an apply or revert, and the states afterwards (for a dry run: before)."""

    plan: PatchPlan
    targets: list[TargetStatus]


def status(
    stack: str | None = None,
    directory: Path | None = None,
    packages: Sequence[str] = (),
    version: str | None = None,
) -> list[TargetStatus]:
    """Find packages and classify them, without changing anything.

    With a stack: all that it patches, only in the stack's versions. Without one: those in ``directory`` (or
    in the wheel that it is) that have a series for any version. Without either: those of the stack that is
    installed for this interpreter. ``packages`` selects some of them; ``version`` is the version of the
    single package selected.

    Raises:
        UsageError: an unknown stack or package, no such directory, a selected package is not in it, no
            stack; or the bookkeeping of a package is damaged.
        MissingRequirement: a package of the stack is not installed for this interpreter.
    """
    required = _required_versions(stack, directory)
    for package in packages:
        if package not in required:
            raise unknown("package", package, required)
    if directory and not directory.is_dir() and not target.is_wheel(directory):
        what = "neither a directory nor a wheel" if directory.exists() else "no such directory"
        raise UsageError(f"{directory}: {what}", "give the directory that holds the package's folder")
    if version and len(packages) != 1:
        raise UsageError("--version states the version of one package", "name the package")
    found: list[PatchTarget] = []
    absent: list[str] = []
    for package in packages or required:
        if one := _find_package(package, directory, version):
            found.append(one)
        elif directory:
            absent.append(package)
        else:
            message = f"{package} is not installed here"
            raise MissingRequirement(message, "vimectl env create DIR --stack NAME")
    names = ", ".join(absent)
    if required and not found:
        hint = "give the directory that holds the package's folder"
        raise UsageError(f"{directory}: no {names} here", hint)
    # Otherwise the command would report "applied" for fewer packages than the user selected.
    if absent and (packages or stack):
        here = " ".join(one.package for one in found)
        raise UsageError(f"{directory}: no {names} here, only {here}", f"name what is meant: {here}")
    return [classify(one, _series_of(one, required[one.package])) for one in found]


def recover_and_classify(
    stack: str | None = None,
    directory: Path | None = None,
    packages: Sequence[str] = (),
    version: str | None = None,
) -> tuple[list[TargetStatus], list[str]]:
    """Finish or undo interrupted changes, then do as ``status``; also return messages about the changes.

    Waits for a change in progress. Errors are also those of ``transaction.recover``.
    """
    messages: list[str] = []
    while True:
        statuses = status(stack, directory, packages, version)
        locations = sorted({one.target.location for one in statuses})
        pending = any(map(transaction_journal.is_pending, locations))
        messages += _recover(locations)
        if not pending:  # otherwise the files may have been read half changed
            return statuses, messages


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
    _recover(locations)
    with locked(locations):
        # Classified again: the files may have changed before the locks were held.
        plan = make_plan(action, [classify(one.target, one.series) for one in targets], merge)
        if plan.steps:
            transaction.execute(action, plan.steps, plan.folders)
    return PatchOutcome(plan, [classify(one.target, one.series) for one in targets])


def _recover(locations: Sequence[Path]) -> list[str]:
    messages = []
    for location in locations:
        if transaction_journal.needs_recovery(location):
            from vimectl.patches import transaction  # rarely needed, but every command checks for it

            messages.append(transaction.recover(location))
    return [message for message in messages if message]


def _series_of(one: PatchTarget, required: str | None) -> Series | None:
    """Return the series for a package, or None when there is none.

    ``required`` is the version that the stack requires; None: any. A version with a local part
    (``0.22.1rc1.dev263+g967c5c3bc``) was made up by a build and names no release. If no series is for that
    version, the result is the one that has the content of most of its files, and of at least half of them.
    """
    versions = [each for each in series.known()[one.package] if required in (None, each)]
    for version in versions:
        if matches(one.version, version):
            return series.load(one.package, version)
    if "+" not in one.version:
        return None
    candidates = [series.load(one.package, version) for version in versions]
    best = max(candidates, key=lambda each: _share_of_known_files(one, each), default=None)
    return best if best and _share_of_known_files(one, best) >= 0.5 else None


def _share_of_known_files(one: PatchTarget, candidate: Series) -> float:
    """Return the share of a series's files that have a content of the series, from 0 to 1."""
    known = [
        candidate.position(path, target.file_id(one.location, path)) is not None for path in candidate.chains
    ]
    return sum(known) / len(known) if known else 0.0


def _required_versions(stack: str | None, directory: Path | None) -> dict[str, str | None]:
    """Return the candidate packages, each with the version that the stack requires (None: any)."""
    if stack is None and directory is not None:
        return dict.fromkeys(series.known())
    name = stack or detect_stack(Host()).stack
    if name is None:
        raise UsageError("no known stack is installed here", "name one with --stack, or give --target DIR")
    return {package: entries[0] for package, entries in load_summary(name).patches.items()}


def _find_package(package: str, directory: Path | None, version: str | None) -> PatchTarget | None:
    versions = series.known().get(package)
    if versions is None:
        raise UsageError(
            f"this vimectl has no patches for {package}", "`vimectl patch list` shows what it has"
        )
    module = series.load(package, versions[0]).module
    if directory:
        return target.find_at(directory, package, module, version)
    return target.find_installed(package, module, version)
