"""Define the schema of ``series.toml``, and the consistency checks across its entries."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from vime_runtime.spec.strict import Strict

BlobId = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
# The part of a patch id after its number.
Slug = Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
# No component starts with a dot: no path outside the target, in .git or in .vimectl matches.
PatchedPath = Annotated[str, Field(pattern=r"^([A-Za-z0-9_][\w.-]*/)*[A-Za-z0-9_][\w.-]*$")]


class PatchedFileTable(Strict):
    """``[[patch.files]]``: git blob id before (none: the file is created) and after (none: it is deleted).

    ``mode`` is git's mode after the patch, stated only where the patch sets it: ``100755`` or ``100644`` for
    a created file or one whose executable bit changes, ``120000`` for every change of a symbolic link (which
    was one before: git has no patch that changes a file into a link). A renamed file is two entries, one
    created and one deleted.
    """

    path: PatchedPath
    before: BlobId | None = None
    after: BlobId | None = None
    mode: Literal["100644", "100755", "120000"] | None = None


class PatchTable(Strict):
    """``[[patch]]``: its text is the file ``<id>.patch``."""

    id: Annotated[str, Field(pattern=r"^[0-9]{4}-[a-z0-9-]+$")]
    files: Annotated[list[PatchedFileTable], Field(min_length=1)]


class SeriesFile(Strict):
    """A ``series.toml``. ``module`` is the folder that identifies the package in a target.

    ``unneeded`` gives, by the slug of a patch of another release, why this release needs none.
    """

    package: str
    version: str
    module: str
    patch: list[PatchTable]
    unneeded: dict[Slug, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _unneeded_are_absent(self) -> SeriesFile:
        for patch in self.patch:
            if patch.id[5:] in self.unneeded:
                raise ValueError(f"{patch.id} is in the series, but [unneeded] says why it is not")
        return self

    @model_validator(mode="after")
    def _files_are_consistent(self) -> SeriesFile:
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
                # The first stated mode implies the one before it, which no entry states.
                if file.before == file.after and (file.mode is None or file.mode == mode):
                    raise ValueError(f"{patch.id} does not change {file.path}")
                if (
                    file.path in last
                    and "120000" in (mode, file.mode)
                    and mode != after[1]
                    and file.after
                    and blob
                ):
                    raise ValueError(f"{patch.id} changes a file into a link, or the reverse: {file.path}")
                contents.setdefault(file.path, [(file.before, mode)]).append(after)
                last[file.path] = after
        for path, seen in contents.items():
            if len(set(seen)) < len(seen):
                raise ValueError(f"{path} returns to an earlier content, so that its state is ambiguous")
        return self
