"""Judge patch files, ours or anyone's: what is wrong, at which line, and whether they fit a release.

report    the findings of a file
layout    hunks and index lines by themselves
mail      what mail and editors do to patches
beside    the series.toml in the same folder
against   a release
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from vime_runtime.spec.errors import UsageError

from vimectl.patches import releases
from vimectl.patches.lint import layout, mail, release_check, series_check
from vimectl.patches.lint.release_check import Release
from vimectl.patches.lint.report import FileReport, findings
from vimectl.patches.patchfile import Defect, FileDiff, load, parse, strict
from vimectl.patches.patchfile.reader import TooLarge
from vimectl.patches.releases.download import Report
from vimectl.patches.sources import Sources, open_path

__all__ = ["FileReport", "lint", "patches_in", "sources_of"]


def sources_of(text: str, report: Report = lambda name, done, total: None) -> Sources:
    """Return what ``--against`` names: a path, or PACKAGE==VERSION from where pip finds it.

    Raises UsageError when there is no such thing, MissingRequirement when it cannot be fetched.
    """
    path, named = Path(text), releases.parse(text)
    if named and not path.exists():
        return releases.find(*named, report)
    if not path.exists():
        raise UsageError(f"{text}: no such file or directory", "a release that pip finds is PACKAGE==VERSION")
    return open_path(path)


def patches_in(paths: Sequence[Path]) -> list[Path]:
    """Return the patch files that are meant: a folder means those in it.

    Raises UsageError when it has none.
    """
    found: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.patch")) if path.is_dir() else [path]
        if not inside:
            raise UsageError(f"{path}: no *.patch in this folder", "name the files")
        found += inside
    return found


def lint(path: Path, sources: Sources | None = None) -> FileReport:
    """Judge one patch file, against a release when one is given. Raises UsageError when it cannot be read."""
    try:
        data = load(path)
    except TooLarge as e:
        return FileReport(path, findings([Defect(1, "too-large", e.message.removeprefix(f"{path}: "))]))
    patch = parse(data)
    defects = [*strict.defects(patch), *mail.check(data, patch)]
    for diff, end in _ranges(patch.diffs):
        # What is left of a broken diff says nothing about context and positions.
        if not any(defect.fatal and diff.line <= defect.line < end for defect in patch.defects):
            defects += layout.check(diff)
    try:
        series = series_check.series_of(path)
        release = Release(sources) if sources else None
        if series:
            defects += series_check.check(path, patch, series)
            release = series_check.below(path, series, release) if release else None
    except UsageError as e:
        return FileReport(path, findings([*defects, Defect(1, "series", e.message)]))
    if release is None:
        return FileReport(path, findings(defects))
    hunks, wrong = release_check.check(patch, release)
    # Where a hunk fits, the release has shown that the file ends there.
    proven = {hunk.line for hunk in hunks if hunk.result in ("exact", "offset")}
    kept = [defect for defect in defects if defect.rule != "end-of-file" or defect.line not in proven]
    return FileReport(path, findings([*kept, *wrong]), tuple(hunks))


def _ranges(diffs: Sequence[FileDiff]) -> Iterator[tuple[FileDiff, float]]:
    """Each diff with the line at which the next one begins."""
    for number, diff in enumerate(diffs, 1):
        yield diff, diffs[number].line if number < len(diffs) else math.inf
