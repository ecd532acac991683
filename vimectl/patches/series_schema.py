"""The schema of ``series.toml``, and what it must say of itself besides."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from vime_runtime.spec.strict import Strict

from vimectl.util import toml

BlobId = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
# What a patch does, as its id says it after the number.
Slug = Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
# No component starts with a dot: nothing outside the target, in .git or in .vimectl can be named.
InsidePath = Annotated[str, Field(pattern=r"^([A-Za-z0-9_][\w.-]*/)*[A-Za-z0-9_][\w.-]*$")]


class PatchedFileTable(Strict):
    """``[[patch.files]]``: git blob id before (none: the file is created) and after (none: it is deleted).

    ``mode`` is git's mode after the patch, stated only where the patch sets it: ``100755`` or ``100644`` for
    a created file or one whose executable bit changes, ``120000`` for every change of a symbolic link (it was
    one before too: git has no patch that makes a link of a file). A renamed file is two entries, one created
    and one deleted.
    """

    path: InsidePath
    before: BlobId | None = None
    after: BlobId | None = None
    mode: Literal["100644", "100755", "120000"] | None = None


class PatchTable(Strict):
    """``[[patch]]``: its text is the file ``<id>.patch``."""

    id: Annotated[str, Field(pattern=r"^[0-9]{4}-[a-z0-9-]+$")]
    files: Annotated[list[PatchedFileTable], Field(min_length=1)]


class SeriesFile(Strict):
    """A whole ``series.toml``. ``module`` is the folder by which the package is recognised in a target.

    ``unneeded`` says, for what other releases are patched for and this one is not, why that is so.
    """

    package: str
    version: str
    module: str
    patch: list[PatchTable]
    unneeded: dict[Slug, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _needed_or_not(self) -> SeriesFile:
        for patch in self.patch:
            if patch.id[5:] in self.unneeded:
                raise ValueError(f"{patch.id} is there and [unneeded] says why it is not")
        return self

    @model_validator(mode="after")
    def _links_match(self) -> SeriesFile:
        last: dict[str, tuple[str | None, str | None]] = {}
        contents: dict[str, list[tuple[str | None, str | None]]] = {}
        for patch in self.patch:
            for file in patch.files:
                blob, mode = last.get(file.path, (file.before, None))
                if blob != file.before:
                    raise ValueError(f"{patch.id} does not start where the patch before it left {file.path}")
                if file.after is None and file.mode not in (None, "120000"):
                    raise ValueError(f"{patch.id} deletes {file.path} and states a mode for it")
                after = (file.after, (file.mode or mode) if file.after else None)
                # The first mode that is stated tells the one before it, which no other entry has.
                if file.before == file.after and (file.mode is None or file.mode == mode):
                    raise ValueError(f"{patch.id} does not change {file.path}")
                if (
                    file.path in last
                    and "120000" in (mode, file.mode)
                    and mode != after[1]
                    and file.after
                    and blob
                ):
                    raise ValueError(f"{patch.id} makes a link of a file, or the reverse: {file.path}")
                contents.setdefault(file.path, [(file.before, mode)]).append(after)
                last[file.path] = after
        for path, seen in contents.items():
            if len(set(seen)) < len(seen):
                raise ValueError(f"{path} returns to an earlier content, so that its state cannot be told")
        return self


def check(data: dict[str, Any], where: str) -> None:
    """Check the tables of a ``series.toml``.

    Raises UsageError that lists every wrong key, ``where`` first.
    """
    toml.validate(SeriesFile, data, where)
