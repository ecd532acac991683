"""What the commands do: find the targets of a stack, judge them, and change them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vimectl import stack as stacks
from vimectl.errors import BadInput, MachineLacks, unknown
from vimectl.host import Host
from vimectl.patching import plan, series, target, transaction
from vimectl.patching.lock import locked
from vimectl.patching.series import Series
from vimectl.patching.state import TargetStatus, judge
from vimectl.patching.target import Target
from vimectl.stack.versions import matches

Found = tuple[Target, Series | None]


@dataclass(frozen=True)
class Outcome:
    """The plan of an apply or revert, and the states afterwards (those found, when it was a dry run)."""

    plan: plan.Plan
    targets: list[TargetStatus]


def status(
    stack: str | None = None,
    directory: Path | None = None,
    packages: Sequence[str] = (),
    version: str | None = None,
) -> list[TargetStatus]:
    """Judge the packages that a stack patches. Changes nothing. Arguments and errors as of ``find``."""
    return [judge(one, its) for one, its in find(stack, directory, packages, version)]


def recover(targets: Sequence[TargetStatus]) -> list[str]:
    """Finish or take back what interrupted commands left in these targets; returns what was done."""
    messages = [transaction.recover(location) for location in _locations(targets)]
    return [message for message in messages if message]


def change(action: plan.Action, targets: Sequence[TargetStatus], dry_run: bool = False) -> Outcome:
    """Apply or revert the series of all targets, all or nothing.

    Errors are those of ``plan.make`` and ``transaction.execute``.
    """
    if dry_run:
        return Outcome(plan.make(action, targets), list(targets))
    with locked(_locations(targets)):
        # Judged again: what was found before the locks were held may have changed.
        planned = plan.make(action, [judge(t.target, t.series) for t in targets])
        if planned.steps:
            transaction.execute(action, planned.steps)
    return Outcome(planned, [judge(t.target, t.series) for t in targets])


def find(
    stack: str | None = None,
    directory: Path | None = None,
    packages: Sequence[str] = (),
    version: str | None = None,
) -> list[Found]:
    """Find the packages to work on, each with its series (None: there is none for this version).

    With a stack, those it patches, and only the stack's version will do; without one, in ``directory``,
    those there that have a series for some version; without either, those of the stack installed for this
    interpreter. ``packages`` narrows it; ``version`` states the version of the one package named.

    Raises:
        BadInput: an unknown stack or package, no such directory or none of the packages in it, no stack.
        MachineLacks: a package of the stack is not installed for this interpreter.
    """
    wanted = _wanted(stack, directory)
    for package in packages:
        if package not in wanted:
            raise unknown("package", package, wanted)
    if directory and not directory.is_dir():
        raise BadInput(f"{directory}: no such directory")
    if version and len(packages) != 1:
        raise BadInput("--version states the version of one package", "name the package")
    found: list[Found] = []
    for package in packages or wanted:
        one = _locate(package, directory, version)
        if one:
            found.append((one, _series_for(one, wanted[package])))
        elif not directory:
            raise MachineLacks(f"{package} is not installed here", "vimectl env create DIR --stack NAME")
    if wanted and not found:
        names = ", ".join(packages or wanted)
        raise BadInput(f"{directory}: no {names} here", "give the directory that holds the package's folder")
    return found


def _wanted(stack: str | None, directory: Path | None) -> dict[str, str | None]:
    """The packages in question, each with the version that the stack wants (None: any)."""
    if stack is None and directory is not None:
        return dict.fromkeys(series.known())
    name = stack or stacks.detect(Host()).stack
    if name is None:
        raise BadInput("no known stack is installed here", "name one with --stack, or give --target DIR")
    return dict(stacks.load(name).patches)


def _locate(package: str, directory: Path | None, version: str | None) -> Target | None:
    versions = series.known().get(package)
    if versions is None:
        raise BadInput(f"this vimectl has no patches for {package}")
    module = series.load(package, versions[0]).module
    if directory:
        return target.at(directory, package, module, version)
    return target.installed(package, module, version)


def _series_for(one: Target, wanted: str | None) -> Series | None:
    for version in series.known()[one.package]:
        if matches(one.version, version) and wanted in (None, version):
            return series.load(one.package, version)
    return None


def _locations(targets: Sequence[TargetStatus]) -> list[Path]:
    return sorted({status.target.location for status in targets})
