"""Check patch files that git can read against the rules in ``rules.toml``, and refuse those with errors.

Beyond git's own checks: writing outside of the target, unusual modes, and changes that a later diff of the
same patch undoes, all of which git accepts silently.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

from vime_runtime.spec.errors import UsageError

from vimectl.patches.blobs import LINK
from vimectl.patches.patchfile.file_diff import Defect, FileDiff, PatchFile
from vimectl.patches.patchfile.links import SeriesLinks
from vimectl.patches.patchfile.names import path_problem, printable
from vimectl.patches.patchfile.reader import parse
from vimectl.util.toml import read_toml

Severity = Literal["error", "warning"]
_GIT_MODES = {None, LINK, "100644", "100755"}


class LintRule(NamedTuple):
    severity: Severity
    meaning: str


@cache
def lint_rules() -> dict[str, LintRule]:
    """Return all rules by name, in the order of the documentation."""
    tables = read_toml(Path(__file__).with_name("rules.toml"))
    return {name: LintRule(**table) for name, table in tables.items()}


def parse_valid(data: bytes, name: str, strip: int | None = None) -> PatchFile:
    """Parse a patch for use. Arguments and errors are those of ``parse`` and ``require_valid``."""
    return require_valid(parse(data, strip), name)


def require_valid(patch: PatchFile, name: str, links: SeriesLinks | None = None) -> PatchFile:
    """Return the patch file. Raises UsageError with the line and rule of its first error.

    ``links`` are those of the patches before it.
    """
    # Every apply reads patches, which rarely have defects: the file of the rules is read only then.
    errors = [defect for defect in all_defects(patch, links) if lint_rules()[defect.rule].severity == "error"]
    if errors:
        first = errors[0]
        more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
        message = f"{name}:{first.line}: {first.rule}: {explain(first)}{more}"
        raise UsageError(message, f"vimectl patch lint {name} shows all")
    return patch


def explain(defect: Defect) -> str:
    """Return the message of a defect, or else the meaning of its rule."""
    return printable(defect.message or lint_rules()[defect.rule].meaning)


def all_defects(patch: PatchFile, links: SeriesLinks | None = None) -> list[Defect]:
    """Return the defects that reading found and those of the content, ordered by line.

    ``links`` are those of the patches before it.
    """
    return sorted(
        [*patch.defects, *_check(patch.diffs, links or SeriesLinks())], key=lambda defect: defect.line
    )


def _check(diffs: Sequence[FileDiff], links: SeriesLinks) -> Iterator[Defect]:
    yield from _check_duplicates(diffs)
    yield from links.check(diffs)
    for diff in diffs:
        for path in {diff.old_path, diff.new_path}:
            if path is not None and (problem := path_problem(path)):
                yield Defect(diff.line, problem.rule, f"{path!r} {problem.what}")
        yield from _check_modes(diff)
        yield from _check_hunks(diff)
        if diff.binary and not diff.has_full_ids:
            yield Defect(diff.line, "binary-ids")


def _check_duplicates(diffs: Sequence[FileDiff]) -> Iterator[Defect]:
    """Report what is lost or refused when a patch has several diffs of one file.

    git applies the diffs in turn, but a rename or copy takes the content from before the patch.
    """
    done: dict[str, tuple[str, int]] = {}
    for diff in diffs:
        old, new = diff.old_path, diff.new_path
        before, line = done.get(old or "", ("", 0))
        if before == "removed" and diff.action in ("modify", "delete"):
            yield Defect(diff.line, "duplicate-file", f"{old} is removed or renamed in line {line} already")
        if before == "changed" and diff.action in ("rename", "copy"):
            message = f"the {diff.action} of {old} takes its content from before line {line}, which is lost"
            yield Defect(diff.line, "duplicate-file", message)
        result, line = done.get(new or "", ("removed", 0))
        if new != old and result != "removed":
            yield Defect(diff.line, "duplicate-file", f"{new} is the result of line {line} already")
        if old and diff.action in ("delete", "rename"):
            done[old] = "removed", diff.line
        if new:
            done[new] = ("changed" if new == old else "made"), diff.line


def _check_modes(diff: FileDiff) -> Iterator[Defect]:
    for mode in {diff.old_mode, diff.new_mode} - _GIT_MODES:
        bits = int(mode or "", 8)
        if bits & 0o7000:
            rule, what = "set-uid", "has set-uid, set-gid or sticky bits"
        elif bits & 0o170000 != 0o100000:
            what = "is a submodule" if mode == "160000" else "is neither a file nor a symbolic link"
            rule = "mode"
        else:
            rule, what = "unusual-mode", "is not one of git's, 100644 and 100755"
        yield Defect(diff.line, rule, f"{diff.path}: mode {mode} {what}")


def _check_hunks(diff: FileDiff) -> Iterator[Defect]:
    """Report hunks that are not in order or overlap, and lines after the last line of a file."""
    for before, after in pairwise(diff.hunks):
        end = before.begin + before.old_count
        if after.begin < before.begin:
            message = f"the hunk for line {after.old_start} comes after the one for line {before.old_start}"
            yield Defect(after.line, "hunk-order", message)
        elif after.begin < end:
            message = f"the hunk starts at line {after.old_start}, and the previous one ends at line {end}"
            yield Defect(after.line, "hunk-overlap", message)
    for hunk in diff.hunks:
        for number, (one, two) in enumerate(pairwise(hunk.content), 1):
            # Only added lines may follow removed ones after a line without a line feed.
            if not one[1].endswith(b"\n") and (one[0], two[0]) != ("-", "+"):
                yield Defect(hunk.line_of(number), "newline-mark")
                break
