"""A series: the patches for one release of one package, in order, with the blob ids of every file they touch.

``patches/<package>/<version>/series.toml`` is read with the schema below; beside it lie the patch files.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from vimectl import toml
from vimectl.data import data_dir

BlobId = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
# What a patch does, as its id says it after the number.
Slug = Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
# No component starts with a dot: nothing outside the target, in .git or in .vimectl can be named.
InsidePath = Annotated[str, Field(pattern=r"^([A-Za-z0-9_][\w.-]*/)*[A-Za-z0-9_][\w.-]*$")]


class PatchedFile(toml.Strict):
    """One file of a patch: git blob id before (None: it is created) and after (None: it is deleted)."""

    path: InsidePath
    before: BlobId | None = None
    after: BlobId | None = None


class Patch(toml.Strict):
    """One patch of a series; its text is the file ``<id>.patch``."""

    id: Annotated[str, Field(pattern=r"^[0-9]{4}-[a-z0-9-]+$")]
    files: Annotated[list[PatchedFile], Field(min_length=1)]


class Series(toml.Strict):
    """A whole series.

    ``module`` is the folder by which the package is recognised in a target (``vllm``); ``directory``, not
    part of the file, is where the patches lie. ``unneeded`` says, for what other releases are patched for
    and this one is not, why that is so.
    """

    directory: Path
    package: str
    version: str
    module: str
    patch: list[Patch]
    unneeded: dict[Slug, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _needed_or_not(self) -> Series:
        for patch in self.patch:
            if patch.id[5:] in self.unneeded:
                raise ValueError(f"{patch.id} is there and [unneeded] says why it is not")
        return self

    @model_validator(mode="after")
    def _links_match(self) -> Series:
        last: dict[str, str | None] = {}
        for patch in self.patch:
            for file in patch.files:
                if file.before == file.after:
                    raise ValueError(f"{patch.id} does not change {file.path}")
                if file.path in last and last[file.path] != file.before:
                    raise ValueError(f"{patch.id} does not start where the patch before it left {file.path}")
                last[file.path] = file.after
        for path, ids in self.chains.items():
            if len(set(ids)) < len(ids):
                raise ValueError(f"{path} returns to an earlier content, so that its state cannot be told")
        return self

    @cached_property
    def chains(self) -> dict[str, list[str | None]]:
        """The blob ids a file goes through as patch after patch applies, pristine first, by path."""
        chains: dict[str, list[str | None]] = {}
        for patch in self.patch:
            for file in patch.files:
                chains.setdefault(file.path, [file.before]).append(file.after)
        return chains

    def touching(self, path: str) -> list[Patch]:
        """The patches that touch ``path``, in order: the n-th leads to ``chains[path][n + 1]``."""
        return [patch for patch in self.patch if any(file.path == path for file in patch.files)]

    @property
    def name(self) -> str:
        return f"{self.package}/{self.version}"


def known() -> dict[str, list[str]]:
    """Return the versions that have a series, by package, both sorted by name."""
    found: dict[str, list[str]] = {}
    for path in sorted(data_dir("patches").glob("*/*/series.toml")):
        found.setdefault(path.parent.parent.name, []).append(path.parent.name)
    return found


def load(package: str, version: str) -> Series:
    """Return one of the ``known`` series. Errors are those of ``read``."""
    return read(data_dir("patches") / package / version)


def read(directory: Path) -> Series:
    """Read the series that lies in a directory. Raises BadInput when its ``series.toml`` is malformed."""
    path = directory / "series.toml"
    return toml.validate(Series, {**toml.read_toml(path), "directory": directory}, str(path))
