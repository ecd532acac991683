"""The patches there are, described for people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import UsageError, unknown

from vimectl.patches import series
from vimectl.stacks.catalog import load_stack


def listing(packages: Sequence[str] = (), stack: str | None = None) -> list[dict[str, Any]]:
    """Return every series, of these packages and this stack only when given, with its patches
    described, and with the reason for each that other releases need and this one does not.

    Raises UsageError for an unknown stack or package.
    """
    known = series.known()
    for package in packages:
        if package not in known:
            raise unknown("package", package, known)
    wanted = load_stack(stack).patches.items() if stack else None
    found = []
    for package in packages or known:
        for version in known[package]:
            if wanted is None or (package, version) in wanted:
                found.append(_describe(series.load(package, version)))
    return found


def find(package: str, version: str, directory: Path | None = None) -> series.Series:
    """Return the series of a release: one of vimectl's own, or that in ``directory``.

    Raises UsageError when there is none, or the one in the folder is for another release.
    """
    if directory:
        one = series.read(directory)
        if (one.package, one.version) != (package, version):
            raise UsageError(
                f"{directory}: the series is for {one.package} {one.version}, not {package} {version}"
            )
        return one
    known = series.known()
    if package not in known:
        raise unknown("package", package, known)
    if version not in known[package]:
        raise unknown(f"series of {package}", version, known[package])
    return series.load(package, version)


def _describe(one: series.Series) -> dict[str, Any]:
    patches = [
        {
            "id": patch.id,
            "description": description(one.directory / f"{patch.id}.patch"),
            "files": [file.path for file in patch.files],
        }
        for patch in one.patch
    ]
    return {
        "package": one.package,
        "version": one.version,
        "patches": patches,
        "unneeded": [{"id": name, "reason": reason} for name, reason in one.unneeded.items()],
    }


def description(path: Path) -> str:
    """Return the synopsis of a patch: the first line of its DEP-3 ``Description``."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.startswith("Description:"):
                return line.partition(":")[2].strip()
    return ""
