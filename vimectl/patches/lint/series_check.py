"""Compare a patch of a series with the series.toml beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vime_runtime.spec.errors import UsageError

from vimectl.patches import series as series_files
from vimectl.patches.lint.release_check import Release
from vimectl.patches.patchfile import Defect, PatchFile, strict
from vimectl.patches.series import Series


def series_of(path: Path) -> Series | None:
    """Return the series in whose folder a patch lies, or None. Raises UsageError when it is malformed."""
    directory = path.resolve().parent
    return series_files.read(directory) if (directory / "series.toml").is_file() else None


def check(path: Path, patch: PatchFile, series: Series) -> Iterator[Defect]:
    """Find where the patch and the series say different things."""
    listed = next((one for one in series.patch if one.id == path.stem), None)
    if listed is None:
        yield Defect(1, "series", f"{series.name} does not list {path.stem}")
        return
    stated = {file.path: file for file in listed.files}
    touched = {name for diff in patch.diffs for name in (diff.old_path, diff.new_path) if name}
    for name in sorted(stated.keys() - touched):
        yield Defect(1, "series", f"series.toml lists {name}, the patch does not touch it")
    for diff in patch.diffs:
        sides = (("before", diff.old_path, diff.old_blob), ("after", diff.new_path, diff.new_blob))
        for side, file, id_ in sides:
            if file is not None and file not in stated:
                yield Defect(diff.line, "series", f"series.toml does not list {file}")
                break
            wanted = (getattr(stated[file], side) if file else None) or "0" * 40
            if file and id_ and not wanted.startswith(id_):
                what = f"{file} has the id {id_} {side} this patch, series.toml says {wanted}"
                yield Defect(diff.line, "series", what)


def below(path: Path, series: Series, release: Release) -> Release:
    """Return the release as the patches before this one in its series leave it.

    Raises UsageError when one of them does not apply: the message names it.
    """
    for one in series.patch:
        if one.id == path.stem:
            break
        file = series.directory / f"{one.id}.patch"
        try:
            release = release.patched(strict.read(file))
        except UsageError as e:
            raise UsageError(
                f"{one.id}.patch, which comes before, does not apply: {e.message}", e.hint
            ) from e
    return release
