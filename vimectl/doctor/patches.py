"""patches: the state of each patch series the stack needs; the same code as `vimectl patch status`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name
from vime_runtime.spec.errors import VimeError

from vimectl.doctor.editable import installs
from vimectl.doctor.finding import Check, Outcome, Subject, judged, skipped
from vimectl.stacks.installed import site_directories
from vimectl.stacks.schema import Stack

if TYPE_CHECKING:
    from vimectl.patches.state import TargetStatus


def checks(stack: Stack) -> list[Check]:
    return [
        Check(
            f"patches.{package}",
            f"without the series {package} {version} the colocated job does not run",
            partial(_state, package),
        )
        for package, version in stack.patches.items()
    ]


def examined(package: str, subject: Subject) -> tuple[list[TargetStatus], Path | None]:
    """Judge a package, wherever it lies on the machine; of another root, with the directory that holds it.

    Raises:
        VimeError: as ``patching.status`` does; of another root nothing is found when it is not installed.
    """
    from vimectl import patches

    directory, version = None, None
    if not subject.host.is_here:
        directory, version = _place(package, subject)
        if directory is None:
            return [], None
    return patches.status(subject.stack.name, directory, [package], version), directory


def _state(package: str, subject: Subject) -> Outcome:
    name = subject.stack.name
    try:
        targets, directory = examined(package, subject)
    except VimeError as e:
        return Outcome("fail", e.message, "applied", e.hint)
    if not targets:
        return skipped(f"{package} is not installed (packages.{package})")
    states = [target.state for target in targets]
    target = f" --target {directory}" if directory else ""
    fix = f"vimectl patch apply --stack {name}{target}"
    if "drifted" in states:
        fix = f"vimectl patch diff {package} --stack {name}{target}  (somebody changed these files)"
    return judged(states == ["applied"], ", ".join(states), "applied", fix)


def _place(package: str, subject: Subject) -> tuple[Path | None, str | None]:
    """The directory of another root that holds the package, as its interpreter would find it.

    With the version where only the metadata of an editable install, elsewhere, states it.
    """
    from vimectl.patches import series

    versions = series.known()[package]
    module = series.load(package, versions[0]).module
    names = {canonicalize_name(name) for name in subject.stack.distributions(package)}
    places: list[tuple[Path, str | None]] = [
        (one.location, one.version) for one in installs(subject.host) if one.name in names
    ]
    places += [(place, None) for place in site_directories(subject.host)]
    return next((one for one in places if (one[0] / module / "__init__.py").is_file()), (None, None))
