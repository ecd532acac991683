"""Lint patch files, each on top of those before it: defects by line, and comparison with a release."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import UsageError

from vimectl.patches.lint.file_checks import check_diff, check_mail_damage
from vimectl.patches.lint.release_check import HunkFit, check_release
from vimectl.patches.lint.repair import Repair, repair_file
from vimectl.patches.patchfile.binary import BinaryBudget
from vimectl.patches.patchfile.file_diff import Defect, PatchFile, PatchTooLarge
from vimectl.patches.patchfile.links import SeriesLinks
from vimectl.patches.patchfile.names import printable
from vimectl.patches.patchfile.quilt import LeveledFile
from vimectl.patches.patchfile.reader import parse
from vimectl.patches.patchfile.rules import Severity, all_defects, explain, lint_rules
from vimectl.patches.patchfile.sources import PatchSource, patch_files, patch_folders, read_file
from vimectl.patches.release_files import PatchedRelease, ReleaseFiles

# The release confirms these defects of a hunk, if it fits: the file does start or end there.
_CONFIRMED = ("end-of-file", "missing-context", "zero-context")


@dataclass(frozen=True, order=True)
class LintFinding:
    """A problem at a line of the patch file; ``rule`` is a stable name."""

    line: int
    rule: str
    severity: Severity
    message: str


@dataclass
class LintReport:
    """The findings for one patch file, by line, and what ``--fix`` changed before.

    ``hunks`` is empty when the file was compared with no release.
    """

    path: Path
    findings: list[LintFinding] = field(default_factory=list)
    hunks: list[HunkFit] = field(default_factory=list)
    fixed: list[Repair] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not any(finding.severity == "error" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return the object that `patch lint --json` prints for the file."""
        return {**asdict(self), "path": str(self.path), "ok": self.ok}


def lint(
    paths: Sequence[Path], files: ReleaseFiles | None = None, strip: int | None = None, fix: bool = False
) -> list[LintReport]:
    """Lint patches, mailboxes, folders and quilt series, and return a report for each file.

    The patches of each path are a series: each is compared with the release as those before it leave it. So
    is a patch in the folder of a quilt series. A folder that has only folders of patches has several series.
    ``fix`` repairs the files first.
    Raises UsageError when a file is unreadable or a folder has no patches.
    """
    reports = []
    for path in (folder for given in paths for folder in patch_folders(given)):
        before, listed, in_series = _files_of(path, strip)
        series = _Series(PatchedRelease(files) if files else None, in_series)
        for file, level in before:
            series.lint(file, level)
        reports += [series.lint(file, level, fix) for file, level in listed]
    return reports


def _files_of(path: Path, strip: int | None) -> tuple[list[LeveledFile], list[LeveledFile], bool]:
    """Return the files before those to lint, and those, with their strip levels; True for a series."""
    series = (path if path.is_dir() else path.parent) / "series"
    whole = path.is_dir() or path == series
    if not whole and series.is_file():
        with suppress(UsageError):  # the series of another tool, which is not what is linted
            listed = patch_files(series, strip)
            for number, (file, level) in enumerate(listed):
                if file.resolve() == path.resolve():
                    return listed[:number], [(path, level)], True
    return [], patch_files(path, strip), whole and series.is_file()


@dataclass
class _Series:
    """Patches that apply one after another.

    ``release`` has those so far, if there is one; ``ids`` has the blob ids that they state, by path, and
    ``links`` the symbolic links that they make. ``budget`` bounds their binary data.
    """

    release: PatchedRelease | None
    in_series: bool
    ids: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.links = SeriesLinks(self.release.link) if self.release else SeriesLinks()
        self.budget = BinaryBudget()

    def lint(self, path: Path, strip: int | None, fix: bool = False) -> LintReport:
        """Lint the next file."""
        rules = lint_rules()
        report = LintReport(path)
        try:
            if fix:
                report.fixed = repair_file(path, self.release, strip)
            for source in read_file(path, strip):
                if source.is_cover_letter:
                    continue
                for defect in self._check(source, report):
                    where = f"line {defect.line} of the decoded text: " if source.encoded else ""
                    severity, line = rules[defect.rule].severity, source.line(defect.line)
                    finding = LintFinding(line, defect.rule, severity, where + explain(defect))
                    report.findings.append(finding)
        except PatchTooLarge as e:
            report.findings = [LintFinding(1, "too-large", rules["too-large"].severity, printable(e.message))]
        report.findings = sorted(set(report.findings))
        return report

    def _check(self, source: PatchSource, report: LintReport) -> list[Defect]:
        """Return the defects of one patch, report how its hunks fit, and apply it to the release."""
        patch = parse(source.data, source.strip)
        self.budget.add(patch.diffs, source.origin)
        defects = [*all_defects(patch, self.links), *check_mail_damage(patch, source.mail is not None)]
        # The readable part of a broken diff says nothing about context and positions.
        broken = [defect.line for defect in patch.defects if defect.fatal]
        ends = [*(diff.line for diff in patch.diffs[1:]), math.inf]
        for diff, end in zip(patch.diffs, ends, strict=False):
            if bisect_left(broken, diff.line) == bisect_left(broken, end):
                defects += check_diff(diff)
        defects += self._check_ids(patch)
        if self.release:
            found = check_release(patch, self.release)
            fitting = {fit.line for fit in found.fits if fit.result in ("exact", "offset")}
            defects = [one for one in defects if one.rule not in _CONFIRMED or one.line not in fitting]
            if len(fitting) == len(found.fits):  # the files of the release have these line endings
                defects = [one for one in defects if one.rule != "crlf-patch"]
            defects += found.defects
            self.release = self.release.with_changes(found.changed)
            report.hunks += (replace(fit, line=source.line(fit.line)) for fit in found.fits)
        return defects

    def _check_ids(self, patch: PatchFile) -> Iterator[Defect]:
        """Report ids that a series lacks, or that differ from those of the patches before."""
        incomplete = False
        for diff in patch.diffs:
            old, new = diff.old_blob, diff.new_blob
            incomplete |= bool(diff.hunks or diff.binary) and not diff.has_full_ids
            known = self.ids.get(diff.old_path or "")
            if known and old and not (known.startswith(old) or old.startswith(known)):
                message = f"{diff.path} has the id {known} after the patches before, not {old}"
                yield Defect(diff.line, "series-ids", message)
            self.ids[diff.path] = new
        if self.in_series and incomplete:
            message = "an index line is missing or abbreviated; `vimectl patch import` writes full ids"
            yield Defect(patch.diffs[0].line, "series-ids", message)
