"""Check patch files that git can read against the rules in ``rules.toml``, and refuse those with errors.

Beyond git's own checks: writing outside of the target, unusual modes, and changes that a later diff of the
same patch undoes, all of which git accepts silently.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

from vime_runtime.spec.errors import UsageError

from vimectl.patches.patchfile.file_diff import SYMLINK, Defect, FileDiff, Hunk, PatchFile
from vimectl.patches.patchfile.names import parent_folders, path_problem, printable
from vimectl.patches.patchfile.reader import load, parse
from vimectl.util.toml import read_toml

Severity = Literal["error", "warning"]
_FILE_MODES = {"100644", "100755"}


class LintRule(NamedTuple):
    severity: Severity
    meaning: str


@cache
def lint_rules() -> dict[str, LintRule]:
    """Return all rules by name, in the order of the documentation."""
    tables = read_toml(Path(__file__).with_name("rules.toml"))
    return {name: LintRule(**table) for name, table in tables.items()}


def read_valid(path: Path, strip: int | None = None) -> PatchFile:
    """Read a patch file for use. Raises UsageError with the line and rule of the first error.

    ``strip`` is that of ``reader.parse``.
    """
    return parse_valid(load(path), str(path), strip)


def parse_valid(data: bytes, name: str, strip: int | None = None) -> PatchFile:
    """Parse the text of a patch file for use; ``name`` is for messages. Raises like ``read_valid``."""
    return require_valid(parse(data, strip), name)


def require_valid(patch: PatchFile, name: str) -> PatchFile:
    """Return the patch file. Raises like ``read_valid``."""
    # Every apply reads patches, which rarely have defects: the file of the rules is read only then.
    errors = [defect for defect in all_defects(patch) if lint_rules()[defect.rule].severity == "error"]
    if errors:
        first = errors[0]
        more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
        message = f"{name}:{first.line}: {first.rule}: {printable(first.message)}{more}"
        raise UsageError(message, f"vimectl patch lint {name} shows all")
    return patch


def all_defects(patch: PatchFile) -> list[Defect]:
    """Return the defects that reading found and those of the content, ordered by line."""
    return sorted([*patch.defects, *_check(patch.diffs)], key=lambda defect: defect.line)


def _check(diffs: Sequence[FileDiff]) -> Iterator[Defect]:
    yield from _check_duplicates(diffs)
    links = {diff.new_path for diff in diffs if diff.new_path and diff.new_mode == SYMLINK}
    for diff in diffs:
        yield from _check_paths(diff)
        yield from _check_modes(diff)
        yield from _check_link_target(diff)
        for folder in parent_folders(diff.path):
            if folder in links:
                message = f"{diff.path} is behind {folder}, a link that this patch makes"
                yield Defect(diff.line, "symlink-through", message)
        for before, after in pairwise(diff.hunks):
            yield from _check_order(before, after)
        yield from _check_newline_marks(diff)
        if diff.binary and not all(len(id_ or "") == 40 for id_ in (diff.old_blob, diff.new_blob)):
            message = (
                f"{diff.path}: git applies binary data only with full ids; `git diff --binary` writes them"
            )
            yield Defect(diff.line, "binary-ids", message)


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


def _check_paths(diff: FileDiff) -> Iterator[Defect]:
    for path in {diff.old_path, diff.new_path} - {None}:
        assert path is not None
        if problem := path_problem(path):
            yield Defect(diff.line, problem.rule, f"{path!r} {problem.what}")


def _check_modes(diff: FileDiff) -> Iterator[Defect]:
    for mode in {diff.old_mode, diff.new_mode} - {None, SYMLINK} - _FILE_MODES:
        assert mode is not None
        bits = int(mode, 8)
        if bits & 0o7000:
            message = f"{diff.path}: mode {mode} has set-uid, set-gid or sticky bits"
            yield Defect(diff.line, "set-uid", message)
        elif bits & 0o170000 != 0o100000:
            what = "a submodule" if mode == "160000" else "neither a file nor a symbolic link"
            yield Defect(diff.line, "mode", f"{diff.path}: mode {mode} is {what}")
        else:
            yield Defect(diff.line, "unusual-mode", f"{diff.path}: mode {mode}; git has 100644 and 100755")


def _check_link_target(diff: FileDiff) -> Iterator[Defect]:
    """Report symbolic links that, as far as the patch shows, lead out of the target directory."""
    is_link = SYMLINK in (diff.new_mode, None if diff.new_mode else diff.old_mode)
    if not is_link or diff.new_path is None:
        return
    if diff.binary:
        yield Defect(diff.line, "symlink-outside", f"{diff.path}: a link whose target is binary data")
    for hunk in diff.hunks:
        target = b"".join(hunk.new_lines()).decode("utf-8", "surrogateescape")
        resolved = posixpath.normpath(posixpath.join(posixpath.dirname(diff.new_path), target))
        outside = posixpath.isabs(target) or resolved.split("/")[0] == ".."
        # The system reads a target only up to a NUL.
        if outside or path_problem(resolved) or "\0" in target:
            yield Defect(hunk.line, "symlink-outside", f"{diff.path} would be a link to {target!r}")


def _check_order(before: Hunk, after: Hunk) -> Iterator[Defect]:
    starts = [hunk.old_start - (hunk.old_count > 0) for hunk in (before, after)]
    end = starts[0] + before.old_count
    if starts[1] < starts[0]:
        message = f"the hunk for line {after.old_start} comes after the one for line {before.old_start}"
        yield Defect(after.line, "hunk-order", message)
    elif starts[1] < end:
        message = f"the hunk starts at line {after.old_start}, and the previous one ends at line {end}"
        yield Defect(after.line, "hunk-overlap", message)


def _check_newline_marks(diff: FileDiff) -> Iterator[Defect]:
    """Report lines after a line without a line feed: only added lines may follow removed ones there."""
    for hunk in diff.hunks:
        for number, (one, two) in enumerate(pairwise(hunk.content)):
            if not one[1].endswith(b"\n") and (one[0], two[0]) != ("-", "+"):
                message = "the file continues after a line that is marked as its last"
                yield Defect(hunk.line_of(number + 1), "newline-mark", message)
