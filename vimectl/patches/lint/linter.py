"""Lint patch files: defects by line, and comparison with their series and with a release."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import UsageError

from vimectl.patches.lint.file_checks import check_diff, check_mail_damage
from vimectl.patches.lint.release_check import HunkFit, PatchedRelease, check_release
from vimectl.patches.patchfile.file_diff import Defect, FileDiff, PatchFile
from vimectl.patches.patchfile.names import printable
from vimectl.patches.patchfile.reader import PatchTooLarge, load, parse
from vimectl.patches.patchfile.rules import Severity, all_defects, lint_rules, read_valid
from vimectl.patches.release_files import ReleaseFiles, open_path
from vimectl.patches.releases import finder
from vimectl.patches.releases.download import DownloadProgress, no_progress
from vimectl.patches.series import Series
from vimectl.patches.series import read as read_series


@dataclass(frozen=True)
class LintFinding:
    """A problem at a line of the patch file; ``rule`` is a stable name."""

    line: int
    rule: str
    severity: Severity
    message: str


@dataclass(frozen=True)
class LintReport:
    """The findings for one patch file, by line. ``hunks`` is empty when it was compared with no release."""

    path: Path
    findings: tuple[LintFinding, ...]
    hunks: tuple[HunkFit, ...] = ()

    @property
    def ok(self) -> bool:
        return not any(finding.severity == "error" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return the object that `patch lint --json` prints for the file."""
        return {**asdict(self), "path": str(self.path), "ok": self.ok}


def open_release(text: str, progress: DownloadProgress = no_progress) -> ReleaseFiles:
    """Open the release that ``--against`` names: a path, or PACKAGE==VERSION from pip's sources.

    Raises UsageError when it does not exist, MissingRequirement when it cannot be fetched.
    """
    path, named = Path(text), finder.parse(text)
    if named and not path.exists():
        return finder.find(*named, progress)
    if not path.exists():
        raise UsageError(f"{text}: no such file or directory", "a release that pip finds is PACKAGE==VERSION")
    return open_path(path)


def patches_in(paths: Sequence[Path]) -> list[Path]:
    """Return the patch files that the user named; a folder means those in it.

    Raises UsageError for a folder without any.
    """
    found: list[Path] = []
    for path in paths:
        files = sorted(path.glob("*.patch")) if path.is_dir() else [path]
        if not files:
            raise UsageError(f"{path}: no *.patch in this folder", "name the files")
        found += files
    return found


def lint(path: Path, files: ReleaseFiles | None = None) -> LintReport:
    """Lint one patch file, and compare it with a release if one is given.

    Raises UsageError when the file is unreadable.
    """
    try:
        data = load(path)
    except PatchTooLarge as e:
        defect = Defect(1, "too-large", e.message.removeprefix(f"{path}: "))
        return LintReport(path, _findings([defect]))
    patch = parse(data)
    defects = [*all_defects(patch), *check_mail_damage(data, patch)]
    for diff, end in _with_ends(patch.diffs):
        # The readable part of a broken diff says nothing about context and positions.
        if not any(defect.fatal and diff.line <= defect.line < end for defect in patch.defects):
            defects += check_diff(diff)
    try:
        series = _series_of(path)
        release = PatchedRelease(files) if files else None
        if series:
            defects += _check_series(path, patch, series)
            release = _with_previous_patches(path, series, release) if release else None
    except UsageError as e:
        return LintReport(path, _findings([*defects, Defect(1, "series", e.message)]))
    if release is None:
        return LintReport(path, _findings(defects))
    found = check_release(patch, release)
    # A hunk that fits the release confirms that the file ends there.
    fitting = {fit.line for fit in found.fits if fit.fits}
    kept = [defect for defect in defects if defect.rule != "end-of-file" or defect.line not in fitting]
    return LintReport(path, _findings([*kept, *found.defects]), tuple(found.fits))


def _with_ends(diffs: Sequence[FileDiff]) -> Iterator[tuple[FileDiff, float]]:
    """Yield each diff with the line at which the next one starts."""
    for number, diff in enumerate(diffs, 1):
        yield diff, diffs[number].line if number < len(diffs) else math.inf


def _findings(defects: Iterable[Defect]) -> tuple[LintFinding, ...]:
    """Return defects as findings, without duplicates, by line."""
    rules = lint_rules()
    found = {LintFinding(d.line, d.rule, rules[d.rule].severity, printable(d.message)) for d in defects}
    return tuple(sorted(found, key=lambda finding: (finding.line, finding.rule, finding.message)))


def _series_of(path: Path) -> Series | None:
    """Return the series whose folder has the patch, or None. Raises UsageError when it is malformed."""
    directory = path.resolve().parent
    return read_series(directory) if (directory / "series.toml").is_file() else None


def _check_series(path: Path, patch: PatchFile, series: Series) -> Iterator[Defect]:
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
                message = f"{file} has the id {id_} {when} this patch, series.toml has {expected}"
                yield Defect(diff.line, "series", message)


def _with_previous_patches(path: Path, series: Series, release: PatchedRelease) -> PatchedRelease:
    """Return the release with the patches that come before this one in its series.

    Raises UsageError when one of them does not apply, and names it.
    """
    for one in series.patch:
        if one.id == path.stem:
            break
        name = f"{one.id}.patch, which comes before, does not apply"
        try:
            found = check_release(read_valid(series.directory / f"{one.id}.patch"), release)
        except UsageError as e:
            raise UsageError(f"{name}: {e.message}", e.hint) from e
        for fit in found.fits:
            if not fit.fits:
                raise UsageError(f"{name}: line {fit.line}: the hunk does not fit {fit.path}")
        release = release.with_changes(found.changed)
    return release
