"""Import patches of any form as a series for a release or a commit. What is left out is named."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import UsageError

from vimectl.patches import series as series_files
from vimectl.patches.interchange.description import as_dep3, from_mail, from_text
from vimectl.patches.lint.release_check import ReleaseCheck, check_release
from vimectl.patches.patchfile.apply import apply_patch
from vimectl.patches.patchfile.binary import BinaryBudget
from vimectl.patches.patchfile.file_diff import Defect, PatchFile
from vimectl.patches.patchfile.links import SeriesLinks
from vimectl.patches.patchfile.reader import parse
from vimectl.patches.patchfile.rules import require_valid
from vimectl.patches.patchfile.sources import PatchSource, read_sources
from vimectl.patches.path_rules import PathRule, is_included
from vimectl.patches.release_files import PatchedRelease, ReleaseFiles
from vimectl.patches.series_writer import NewPatch, write_series

# The email header with the id of an exported patch.
ID_HEADER = "X-Vimectl-Id"
_LINT = "vimectl patch lint FILE --against ... shows how each hunk fits; lint --fix repairs what it can"
# By rule: what to do about a defect that keeps a patch from being applied.
_MISFITS = {
    "not-in-release": "--exclude GLOB leaves files out, -p N removes folders in front of names",
    "hunk-does-not-apply": _LINT,
    "hunk-needs-fuzz": _LINT,
    "hunk-applied-already": "leave the patch out, or name the release without it",
}


@dataclass(frozen=True)
class ImportedPatch(NewPatch):
    """A patch of the new series, where it is from, and how many of its hunks were at another line."""

    origin: str
    offsets: int

    def as_json(self) -> dict[str, Any]:
        """Return the object that `patch import --json` prints for the patch."""
        files = [
            {"path": path, "before": before.blob if before else None, "after": after.blob if after else None}
            for path, (before, after) in self.changes.items()
        ]
        return {"id": self.id, "from": self.origin, "files": files, "offsets": self.offsets}


@dataclass(frozen=True)
class Imported:
    """The patches of a new series, and by origin the paths that were left out."""

    patches: list[ImportedPatch]
    left_out: list[tuple[str, str]]

    def write(self, out: Path, package: str, version: str = "", commit: str = "", module: str = "") -> None:
        """Write the series into a new directory. ``module`` is by default that of its other series.

        Raises UsageError when a series cannot express a change, MissingRequirement when git is not installed
        or the directory cannot be written.
        """
        versions = series_files.known().get(package)
        if versions and not module:
            module = series_files.load(package, versions[0]).module
        comment = f"Patches for {package} {version or commit}, in the order in which they apply."
        write_series(out, comment, package, version, module, self.patches, commit=commit)


def import_patches(
    paths: Iterable[Path], files: ReleaseFiles, strip: int | None = None, rules: Sequence[PathRule] = ()
) -> Imported:
    """Apply the patches in files and folders to a release, and return what a series needs.

    Each patch is applied by git's rules, on top of the ones before it. ``rules`` choose the files: the first
    rule that matches a path counts, and a path that none matches is included if no rule includes.
    Raises UsageError when there are no patches, or one does not apply.
    """
    release = PatchedRelease(files)
    links, budget = SeriesLinks(release.link), BinaryBudget()
    found = Imported([], [])
    for source in (source for path in paths for source in read_sources(path, strip)):
        if source.is_cover_letter:
            found.left_out.append((source.origin, "cover letter"))
            continue
        parsed = parse(source.data, source.strip)
        excluded = {diff.path for diff in parsed.diffs if not is_included(diff.path, rules)}
        found.left_out.extend((source.origin, path) for path in sorted(excluded))
        patch = require_valid(_without(parsed, excluded), source.origin, links)
        budget.add(patch.diffs, source.origin)
        if patch.diffs:
            one = _apply(source, patch, excluded, release, len(found.patches) + 1)
            release = release.with_changes({path: after for path, (_, after) in one.changes.items()})
            found.patches.append(one)
    if not found.patches:
        raise UsageError("nothing is left of the patches", "correct --include and --exclude")
    return found


def _without(patch: PatchFile, excluded: Collection[str]) -> PatchFile:
    """Return a patch without the diffs of some paths, and the errors that their binary data is missing."""

    def is_excluded(defect: Defect) -> bool:
        owner = [diff for diff in patch.diffs if diff.line <= defect.line][-1:]
        without_data = defect.rule == "binary-without-data"
        return without_data and any(diff.binary == () and diff.path in excluded for diff in owner)

    return patch._replace(
        diffs=tuple(diff for diff in patch.diffs if diff.path not in excluded),
        defects=tuple(defect for defect in patch.defects if not is_excluded(defect)),
    )


def _apply(
    source: PatchSource, patch: PatchFile, excluded: Iterable[str], release: PatchedRelease, number: int
) -> ImportedPatch:
    """Return what a patch does to the release. Raises UsageError."""
    found = check_release(patch, release)
    try:
        results = apply_patch(patch, release.file, excluded)
    except UsageError as e:
        why, hint = _misfit(found) or (e.message, _LINT)
        raise UsageError(f"{source.origin}: does not apply to {release.name}: {why}", hint) from e
    changes = {path: (release.file(path), after) for path, after in sorted(results.items())}
    changes = {path: states for path, states in changes.items() if states[0] != states[1]}
    for diff in patch.diffs:
        if not changes.keys() & {diff.old_path, diff.new_path}:
            raise UsageError(
                f"{source.origin}: changes nothing in {diff.path} of {release.name}",
                f"leave it out with --exclude '{diff.path}'",
            )
    text = patch.header.decode("utf-8", "surrogateescape")
    described = from_mail(source.mail, text, source.name) if source.mail else from_text(text, source.name)
    slug = _slug(str((source.mail and source.mail[ID_HEADER]) or source.name or described.subject))
    header = as_dep3(described).encode("utf-8", "surrogateescape")
    offsets = sum(fit.result == "offset" for fit in found.fits)
    return ImportedPatch(f"{number:04}-{slug}", header, changes, source.origin, offsets)


def _misfit(found: ReleaseCheck) -> tuple[str, str] | None:
    """Return why a patch does not apply, and a hint, if it is more than git says."""
    first = {defect.rule: defect for defect in reversed(found.defects)}
    for rule, hint in _MISFITS.items():
        if rule in first:
            elsewhere = f"; {first['strip-level'].message}" if "strip-level" in first else ""
            return f"line {first[rule].line}: {first[rule].message}{elsewhere}", hint
    return None


def _slug(name: str) -> str:
    """Return a name for the id of a patch: lowercase letters, digits and dashes."""
    plain = re.sub(r"[^a-z0-9]+", "-", re.sub(r"^\d+-", "", name.lower())).strip("-")
    return plain[:60].strip("-") or "patch"
