"""Compare a patch of a series with the ``series.toml`` in its folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vime_runtime.spec.errors import UsageError

from vimectl.patches import series as series_files
from vimectl.patches.lint.release_check import PatchedRelease
from vimectl.patches.patchfile.model import Defect, PatchFile
from vimectl.patches.patchfile.rules import read_valid
from vimectl.patches.series import Series


def series_of(path: Path) -> Series | None:
    """Return the series whose folder has the patch, or None. Raises UsageError when it is malformed."""
    directory = path.resolve().parent
    return series_files.read(directory) if (directory / "series.toml").is_file() else None


def check_series(path: Path, patch: PatchFile, series: Series) -> Iterator[Defect]:
    """Report where the patch and the series disagree."""
    listed = next((one for one in series.patch if one.id == path.stem), None)
    if listed is None:
        yield Defect(1, "series", f"{series.name} does not list {path.stem}")
        return
    stated = {file.path: file for file in listed.files}
    touched = {name for diff in patch.diffs for name in (diff.old_path, diff.new_path) if name}
    for name in sorted(stated.keys() - touched):
        yield Defect(1, "series", f"series.toml lists {name}, the patch does not touch it")
    for diff in patch.diffs:
        versions = (("before", diff.old_path, diff.old_blob), ("after", diff.new_path, diff.new_blob))
        for when, file, id_ in versions:
            if file is not None and file not in stated:
                yield Defect(diff.line, "series", f"series.toml does not list {file}")
                break
            expected = (getattr(stated[file], when) if file else None) or "0" * 40
            if file and id_ and not expected.startswith(id_):
                message = f"{file} has the id {id_} {when} this patch, series.toml says {expected}"
                yield Defect(diff.line, "series", message)


def with_previous_patches(path: Path, series: Series, release: PatchedRelease) -> PatchedRelease:
    """Return the release with the patches that come before this one in its series.

    Raises UsageError when one of them does not apply, and names it.
    """
    for one in series.patch:
        if one.id == path.stem:
            break
        try:
            release = release.with_patch(read_valid(series.directory / f"{one.id}.patch"))
        except UsageError as e:
            message = f"{one.id}.patch, which comes before, does not apply: {e.message}"
            raise UsageError(message, e.hint) from e
    return release
