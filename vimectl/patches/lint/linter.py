"""Lint patch files, each on top of those before it: defects by line, and comparison with a release."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import UsageError

from vimectl.patches.lint.file_checks import check_diff, check_mail_damage
from vimectl.patches.lint.release_check import HunkFit, check_release
from vimectl.patches.lint.repair import Repair, repair_file
from vimectl.patches.patchfile.file_diff import Defect, FileDiff, PatchFile
from vimectl.patches.patchfile.names import printable
from vimectl.patches.patchfile.reader import PatchTooLarge, parse
from vimectl.patches.patchfile.rules import Severity, all_defects, lint_rules
from vimectl.patches.patchfile.sources import PatchSource, patch_files, read_file
from vimectl.patches.release_files import PatchedRelease, ReleaseFiles, open_path
from vimectl.util.phase_progress import ReportPhase

# The release confirms these defects of a hunk, if it fits: the file does start or end there.
_CONFIRMED = ("end-of-file", "missing-context", "zero-context")


@dataclass(frozen=True)
class LintFinding:
    """A problem at a line of the patch file; ``rule`` is a stable name."""

    line: int
    rule: str
    severity: Severity
    message: str


@dataclass(frozen=True)
class LintReport:
    """The findings for one patch file, by line, and what ``--fix`` changed before.

    ``hunks`` is empty when the file was compared with no release.
    """

    path: Path
    findings: tuple[LintFinding, ...]
    hunks: tuple[HunkFit, ...] = ()
    fixed: tuple[Repair, ...] = ()

    @property
    def ok(self) -> bool:
        return not any(finding.severity == "error" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return the object that `patch lint --json` prints for the file."""
        return {**asdict(self), "path": str(self.path), "ok": self.ok}


def open_release(text: str, progress: ReportPhase = lambda now: None) -> ReleaseFiles:
    """Open the release that ``--against`` names: a path, or PACKAGE==VERSION from pip's sources.

    Raises UsageError when it does not exist, MissingRequirement when it cannot be fetched.
    """
    from vimectl.patches.releases import finder

    path, named = Path(text), finder.parse(text)
    if named and not path.exists():
        return finder.find(*named, progress)
    if not path.exists():
        raise UsageError(f"{text}: no such file or directory", "a release that pip finds is PACKAGE==VERSION")
    return open_path(path)


def lint(
    paths: Sequence[Path], files: ReleaseFiles | None = None, strip: int | None = None, fix: bool = False
) -> list[LintReport]:
    """Lint patches, mailboxes, folders and quilt series, and return a report for each file.

    The patches of each path are a series: each is compared with the release as those before it leave it. So
    is a patch in the folder of a quilt series. ``fix`` repairs the files first.
    Raises UsageError when a file is unreadable or a folder has no patches.
    """
    return [report for path in paths for report in _Series(path, files, strip).lint(fix)]


@dataclass
class _Series:
    """Patches that apply one after another. ``ids`` has the blob ids that those so far state, by path."""

    path: Path
    files: ReleaseFiles | None
    strip: int | None
    ids: dict[str, str | None] = field(default_factory=dict)

    def lint(self, fix: bool) -> Iterator[LintReport]:
        release = PatchedRelease(self.files) if self.files else None
        before, files, in_series = self._files()
        for file, strip in before + files:
            report = LintReport(file, ())
            try:
                if fix and (file, strip) not in before:
                    report = replace(report, fixed=repair_file(file, release, strip))
                for source in read_file(file, strip):
                    if not source.is_cover_letter:
                        found, release = self._check(source, release, in_series)
                        report = replace(
                            report,
                            findings=report.findings + found.findings,
                            hunks=report.hunks + found.hunks,
                        )
            except PatchTooLarge as e:
                defect = Defect(1, "too-large", e.message.removeprefix(f"{file}: "))
                report = replace(report, findings=_findings([defect]))
            if (file, strip) not in before:
                yield report

    def _files(self) -> tuple[list[tuple[Path, int | None]], list[tuple[Path, int | None]], bool]:
        """Return the files before those to lint, and those, with their strip levels; True for a series."""
        series = (self.path if self.path.is_dir() else self.path.parent) / "series"
        whole = self.path.is_dir() or self.path == series
        if not whole and series.is_file():
            with suppress(UsageError):  # the series of another tool, which is not what is linted
                listed = patch_files(series, self.strip)
                for number, (file, level) in enumerate(listed):
                    if file.resolve() == self.path.resolve():
                        return listed[:number], [(self.path, level)], True
        return [], patch_files(self.path, self.strip), whole and series.is_file()

    def _check(
        self, source: PatchSource, release: PatchedRelease | None, in_series: bool
    ) -> tuple[LintReport, PatchedRelease | None]:
        """Return the report of one patch, and the release with it."""
        patch = parse(source.data, source.strip)
        defects = [*all_defects(patch), *check_mail_damage(source.data, patch, source.mail is not None)]
        for diff, end in _with_ends(patch.diffs):
            # The readable part of a broken diff says nothing about context and positions.
            if not any(defect.fatal and diff.line <= defect.line < end for defect in patch.defects):
                defects += check_diff(diff)
        defects += self._check_ids(patch, in_series)
        fits: list[HunkFit] = []
        if release:
            found = check_release(patch, release)
            fits = found.fits
            fitting = {fit.line for fit in fits if fit.fits}
            defects = [one for one in defects if one.rule not in _CONFIRMED or one.line not in fitting]
            if len(fitting) == len(fits):  # the files of the release have these line endings
                defects = [one for one in defects if one.rule != "crlf-patch"]
            defects += found.defects
            release = release.with_changes(found.changed)
        lines = tuple(replace(fit, line=source.line(fit.line)) for fit in fits)
        return LintReport(source.path, _findings(map(source.locate, defects)), lines), release

    def _check_ids(self, patch: PatchFile, in_series: bool) -> Iterator[Defect]:
        """Report ids that a series lacks, or that differ from those of the patches before."""
        incomplete = False
        for diff in patch.diffs:
            ids = (diff.old_blob, diff.new_blob)
            if diff.hunks or diff.binary:
                incomplete = incomplete or any(len(id_ or "") != 40 for id_ in ids)
            known = self.ids.get(diff.old_path or "")
            if known and ids[0] and not (known.startswith(ids[0]) or ids[0].startswith(known)):
                message = f"{diff.path} has the id {known} after the patches before, not {ids[0]}"
                yield Defect(diff.line, "series-ids", message)
            self.ids.update({path: ids[1] for path in (diff.new_path or diff.old_path,) if path})
        if in_series and incomplete:
            message = "an index line is missing or abbreviated; `vimectl patch import` writes full ids"
            yield Defect(patch.diffs[0].line, "series-ids", message)


def _with_ends(diffs: Sequence[FileDiff]) -> Iterator[tuple[FileDiff, float]]:
    """Yield each diff with the line at which the next one starts."""
    for number, diff in enumerate(diffs, 1):
        yield diff, diffs[number].line if number < len(diffs) else math.inf


def _findings(defects: Iterable[Defect]) -> tuple[LintFinding, ...]:
    """Return defects as findings, without duplicates, by line."""
    rules = lint_rules()
    found = {LintFinding(d.line, d.rule, rules[d.rule].severity, printable(d.message)) for d in defects}
    return tuple(sorted(found, key=lambda finding: (finding.line, finding.rule, finding.message)))
