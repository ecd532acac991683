"""Which packages a command means, where they are, and which series is theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vime_runtime.spec.errors import MissingRequirement, UsageError, unknown

from vimectl.patches import series, target, tree
from vimectl.patches.series import Series
from vimectl.patches.target import Target
from vimectl.stacks.catalog import load_summary
from vimectl.stacks.detection import detect_stack
from vimectl.stacks.versions import matches
from vimectl.util.host import Host


@dataclass(frozen=True)
class Wanted:
    """A package that was found, and the version of it that the stack wants (None: any)."""

    target: Target
    version: str | None


def targets(
    stack: str | None = None,
    directory: Path | None = None,
    packages: Sequence[str] = (),
    version: str | None = None,
) -> list[Wanted]:
    """Find the packages to work on.

    With a stack, all those it patches, and only the stack's version will do; without one, in ``directory``
    (or in the wheel that it is), those there that have a series for some version; without either, those of
    the stack installed for this interpreter. ``packages`` narrows it; ``version`` states the version of the
    one package named.

    Raises:
        UsageError: an unknown stack or package, no such directory, a package that was asked for is not in it,
            no stack.
        MissingRequirement: a package of the stack is not installed for this interpreter.
    """
    wanted = _wanted(stack, directory)
    for package in packages:
        if package not in wanted:
            raise unknown("package", package, wanted)
    if directory and not directory.is_dir() and not tree.is_wheel(directory):
        what = "neither a directory nor a wheel" if directory.exists() else "no such directory"
        raise UsageError(f"{directory}: {what}")
    if version and len(packages) != 1:
        raise UsageError("--version states the version of one package", "name the package")
    found: list[Wanted] = []
    for package in packages or wanted:
        one = _locate(package, directory, version)
        if one:
            found.append(Wanted(one, wanted[package]))
        elif not directory:
            raise MissingRequirement(
                f"{package} is not installed here", "vimectl env create DIR --stack NAME"
            )
    absent = [
        package for package in packages or wanted if package not in {one.target.package for one in found}
    ]
    if wanted and not found:
        names = ", ".join(absent)
        raise UsageError(
            f"{directory}: no {names} here", "give the directory that holds the package's folder"
        )
    # "applied" would be said of less than what was asked for.
    if absent and (packages or stack):
        here = " ".join(one.target.package for one in found)
        raise UsageError(
            f"{directory}: no {', '.join(absent)} here, only {here}", f"name what is meant: {here}"
        )
    return found


def series_of(one: Wanted) -> Series | None:
    """Return the series for a package that was found; None when there is none for what it is.

    A version with a local part (``0.22.1rc1.dev263+g967c5c3bc``) was made up by a build and names no release.
    Where no series is for it as it stands, its content decides: the series that knows the content of
    most of its files, and of at least half of them.
    """
    its = one.target
    versions = [each for each in series.known()[its.package] if one.version in (None, each)]
    for version in versions:
        if matches(its.version, version):
            return series.load(its.package, version)
    if "+" not in its.version:
        return None
    candidates = [series.load(its.package, version) for version in versions]
    best = max(candidates, key=lambda each: _known(its, each), default=None)
    return best if best and _known(its, best) >= 0.5 else None


def _known(its: Target, one: Series) -> float:
    """The share of a series's files that have a content which the series knows."""
    known = [one.position(path, tree.found(its.location, path)) is not None for path in one.chains]
    return sum(known) / len(known) if known else 0.0


def _wanted(stack: str | None, directory: Path | None) -> dict[str, str | None]:
    """The packages in question, each with the version that the stack wants (None: any)."""
    if stack is None and directory is not None:
        return dict.fromkeys(series.known())
    name = stack or detect_stack(Host()).stack
    if name is None:
        raise UsageError("no known stack is installed here", "name one with --stack, or give --target DIR")
    return dict(load_summary(name).patches)


def _locate(package: str, directory: Path | None, version: str | None) -> Target | None:
    versions = series.known().get(package)
    if versions is None:
        raise UsageError(f"this vimectl has no patches for {package}")
    module = series.load(package, versions[0]).module
    if directory:
        return target.at(directory, package, module, version)
    return target.installed(package, module, version)
