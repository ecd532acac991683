"""A series: the patches for one release of one package, in order, with the blob ids of all files they touch.

``series_schema`` describes ``patches/<package>/<version>/series.toml``; beside it lie the patch files.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from vimectl.patches.blobs import LINK, Found
from vimectl.util.resources import data_dir
from vimectl.util.toml import read_toml


@dataclass(frozen=True)
class PatchedFile:
    """One file of a patch: git blob id before (None: it is created) and after (None: it is deleted), and the
    git mode after it, where the patch states one."""

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
    """A whole series.

    ``module`` is the folder by which the package is recognised in a target (``vllm``); ``directory`` is
    where the patches lie. ``unneeded`` says, for what other releases are patched for and this one is not,
    why that is so.
    """

    directory: Path
    package: str
    version: str
    module: str
    patch: list[Patch]
    unneeded: dict[str, str] = field(default_factory=dict)

    @cached_property
    def chains(self) -> dict[str, list[str | None]]:
        """The blob ids a file goes through as patch after patch applies, pristine first, by path."""
        chains: dict[str, list[str | None]] = {}
        for patch in self.patch:
            for file in patch.files:
                chains.setdefault(file.path, [file.before]).append(file.after)
        return chains

    @cached_property
    def modes(self) -> dict[str, list[str | None]]:
        """The git modes a file goes through, as ``chains``; None where the series says nothing: any will do.

        The first mode that a patch states tells the one before it: a link was a link, and an
        executable bit that is set was not set.
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

    def position(self, path: str, found: Found) -> int | None:
        """Return how many of the patches that touch ``path`` are in what was found; None: not theirs."""
        for index, (blob, mode) in enumerate(zip(self.chains[path], self.modes[path], strict=True)):
            link_fits = (mode == LINK) == (found.mode == LINK)
            if blob == found.blob and (blob is None or (link_fits and mode in (None, found.mode))):
                return index
        return None

    def touching(self, path: str) -> list[Patch]:
        """The patches that touch ``path``, in order: the n-th leads to ``chains[path][n + 1]``."""
        return [patch for patch in self.patch if any(file.path == path for file in patch.files)]

    @property
    def name(self) -> str:
        return f"{self.package}/{self.version}"

    @cached_property
    def digest(self) -> str:
        """SHA-256 over ``series.toml`` and the patches, names included: which series this is."""
        whole = hashlib.sha256()
        for name in ("series.toml", *(f"{patch.id}.patch" for patch in self.patch)):
            content = hashlib.sha256((self.directory / name).read_bytes()).hexdigest()
            whole.update(f"{content}  {name}\n".encode())
        return whole.hexdigest()


def known() -> dict[str, list[str]]:
    """Return the versions that have a series, by package, both sorted by name."""
    found: dict[str, list[str]] = {}
    for path in sorted(data_dir("patches").glob("*/*/series.toml")):
        found.setdefault(path.parent.parent.name, []).append(path.parent.name)
    return found


def load(package: str, version: str) -> Series:
    """Return one of the ``known`` series. They are checked when vimectl is tested, not each time: the
    schema takes longer to start than all the rest of `patch status`."""
    directory = data_dir("patches") / package / version
    try:
        return _build(directory, read_toml(directory / "series.toml"))
    except (KeyError, TypeError, AttributeError):
        return read(directory)  # says what is wrong


def read(directory: Path) -> Series:
    """Read the series that lies in a directory. Raises UsageError when its ``series.toml`` is malformed."""
    from vimectl.patches import series_schema

    path = directory / "series.toml"
    data = read_toml(path)
    series_schema.check(data, str(path))
    return _build(directory, data)


def _build(directory: Path, data: dict[str, Any]) -> Series:
    patches = [
        Patch(patch["id"], [PatchedFile(**file) for file in patch["files"]]) for patch in data["patch"]
    ]
    unneeded = data.get("unneeded", {})
    return Series(directory, data["package"], data["version"], data["module"], patches, unneeded)
