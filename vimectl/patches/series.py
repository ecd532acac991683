"""Find and read series: the patches for one release of a package, in order, with the blob ids of all files.

A series is the directory ``patches/<package>/<version>``: a ``series.toml`` (see ``series_schema``) and the
patch files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from vime_runtime.spec.atomic_io import sha256_file
from vime_runtime.spec.errors import UsageError, unknown

from vimectl.patches.blobs import LINK, FileId
from vimectl.stacks.catalog import load_stack
from vimectl.util.resources import data_dir
from vimectl.util.toml import read_toml, validate


@dataclass(frozen=True)
class PatchedFile:
    """One file of a patch: blob id before (None: created) and after (None: deleted), and the git mode after
    it if the patch states one."""

    path: str
    before: str | None = None
    after: str | None = None
    mode: str | None = None


@dataclass(frozen=True)
class Patch:
    """One patch of a series; its text is the file ``<id>.patch``."""

    id: str
    files: list[PatchedFile]


@dataclass(frozen=True)
class Series:
    """The patches for one release.

    ``module`` is the folder that identifies the package in a target (``vllm``), ``directory`` that of the
    patch files. ``unneeded`` gives, by the slug of a patch of another release, why this release needs none.
    """

    directory: Path
    package: str
    version: str
    module: str
    patch: list[Patch]
    unneeded: dict[str, str] = field(default_factory=dict)

    @cached_property
    def chains(self) -> dict[str, list[str | None]]:
        """Return by path the blob ids of a file: as released, then after each patch that touches it."""
        chains: dict[str, list[str | None]] = {}
        for patch in self.patch:
            for file in patch.files:
                chains.setdefault(file.path, [file.before]).append(file.after)
        return chains

    @cached_property
    def modes(self) -> dict[str, list[str | None]]:
        """Return by path the git modes of a file, parallel to ``chains``; None: not stated, any mode fits.

        The first stated mode implies the one before it: a link was a link, and an executable bit that is
        set was not set.
        """
        modes: dict[str, list[str | None]] = {}
        for path in self.chains:
            stated = [file.mode for patch in self.touching(path) for file in patch.files if file.path == path]
            first = next((mode for mode in stated if mode), None)
            current = first if first in (None, LINK) else "100644" if first == "100755" else "100755"
            modes[path] = [current]
            for mode in stated:
                current = mode or current
                modes[path].append(current)
        return modes

    def position(self, path: str, found: FileId) -> int | None:
        """Return how many of the patches that touch ``path`` are applied to a file; None: unknown content."""
        for index, (blob, mode) in enumerate(zip(self.chains[path], self.modes[path], strict=True)):
            link_fits = (mode == LINK) == (found.mode == LINK)
            if blob == found.blob and (blob is None or (link_fits and mode in (None, found.mode))):
                return index
        return None

    def touching(self, path: str) -> list[Patch]:
        """Return the patches that touch ``path``, in order: the n-th leads to ``chains[path][n + 1]``."""
        return [patch for patch in self.patch if any(file.path == path for file in patch.files)]

    @property
    def name(self) -> str:
        return f"{self.package}/{self.version}"

    def patch_path(self, patch_id: str) -> Path:
        """Return the path of a patch file."""
        return self.directory / f"{patch_id}.patch"

    @cached_property
    def digest(self) -> str:
        """Return the SHA-256 over the names and digests of ``series.toml`` and the patch files."""
        files = [self.directory / "series.toml", *(self.patch_path(patch.id) for patch in self.patch)]
        lines = [f"{sha256_file(path)}  {path.name}\n" for path in files]
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def known() -> dict[str, list[str]]:
    """Return the versions that have a series, by package, both sorted by name."""
    found: dict[str, list[str]] = {}
    for path in sorted(data_dir("patches").glob("*/*/series.toml")):
        found.setdefault(path.parent.parent.name, []).append(path.parent.name)
    return found


def load(package: str, version: str) -> Series:
    """Return one of the ``known`` series.

    It is not validated: vimectl's tests do that, and importing the schema takes longer than the rest of
    `patch status`.
    """
    directory = data_dir("patches") / package / version
    try:
        return _build(directory, read_toml(directory / "series.toml"))
    except (KeyError, TypeError, AttributeError):
        return read(directory)  # raises an error that names the wrong key


def read(directory: Path) -> Series:
    """Read the series in a directory. Raises UsageError when its ``series.toml`` is malformed."""
    from vimectl.patches.series_schema import SeriesFile

    path = directory / "series.toml"
    data = read_toml(path)
    validate(SeriesFile, data, str(path))
    return _build(directory, data)


def find(package: str, version: str, directory: Path | None = None) -> Series:
    """Return the series of a release: one that vimectl ships, or the one in ``directory``.

    Raises UsageError when there is none, or the one in the directory is for another release.
    """
    if directory:
        one = read(directory)
        if (one.package, one.version) != (package, version):
            found = f"{one.package} {one.version}"
            raise UsageError(
                f"{directory}: the series is for {found}, not {package} {version}", "name another directory"
            )
        return one
    versions = known()
    if package not in versions:
        raise unknown("package", package, versions)
    if version not in versions[package]:
        raise unknown(f"series of {package}", version, versions[package])
    return load(package, version)


def list_series(packages: Sequence[str] = (), stack: str | None = None) -> list[dict[str, Any]]:
    """Return a JSON description of every series, or only those of some packages or of a stack.

    Each has its patches, and the reasons for those of other releases that it does not need.
    Raises UsageError for an unknown stack or package.
    """
    versions = known()
    for package in packages:
        if package not in versions:
            raise unknown("package", package, versions)
    wanted = load_stack(stack).patches.items() if stack else None
    return [
        _describe(load(package, version))
        for package in packages or versions
        for version in versions[package]
        if wanted is None or (package, version) in wanted
    ]


def _describe(one: Series) -> dict[str, Any]:
    patches = [
        {
            "id": patch.id,
            "description": _synopsis(one.patch_path(patch.id)),
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


def _synopsis(path: Path) -> str:
    """Return the first line of a patch's DEP-3 ``Description``."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.startswith("Description:"):
                return line.partition(":")[2].strip()
    return ""


def _build(directory: Path, data: dict[str, Any]) -> Series:
    patches = [
        Patch(patch["id"], [PatchedFile(**file) for file in patch["files"]]) for patch in data["patch"]
    ]
    unneeded = data.get("unneeded", {})
    return Series(directory, data["package"], data["version"], data["module"], patches, unneeded)
