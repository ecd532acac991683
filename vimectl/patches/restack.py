"""Rebase the patches of a series in memory after one of them changed, all or none."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise

from vime_runtime.spec.errors import CheckFailed

from vimectl.patches.content import stages
from vimectl.patches.git_commands import FileChanges, merge_file
from vimectl.patches.patchfile.apply import FileLookup, GitFile
from vimectl.patches.series import Patch, Series
from vimectl.patches.series_writer import NewPatch, render

DEFAULT_MODE = "100644"
# The states of files by path; None: no such file.
FileStates = Mapping[str, "GitFile | None"]


def restack(
    series: Series,
    released: FileStates,
    patch_id: str,
    after: FileStates | None,
    header: bytes | None = None,
) -> tuple[Series, FileStates]:
    """Change or drop a patch of a series, and rebase the later ones with three-way merges.

    Returns the new series, whose ``directories`` still have the old files, and every file as it leaves them.
    Patches that stay the same keep their text byte for byte; those of which nothing is left are not in it.

    Args:
        released: the files that the series touches, or ``after`` names, below the first patch.
        patch_id: the patch that changes.
        after: the files that it changes, as it leaves them; None drops it.
        header: the new text above its diff; None keeps the one it has.

    Raises:
        CheckFailed: a later patch changes the same lines; the message shows both.
        UsageError: there is no such patch, the contents are not those of the series, or a series cannot
            express a change.
        MissingRequirement: git is not installed.
    """
    series.find(patch_id)
    current = dict(released)
    patches: list[Patch | NewPatch] = []
    for patch, old in walk(series, released.__getitem__):
        text = patch.header
        if patch.id != patch_id:
            new = {path: merge_states(patch.id, path, a, current[path], b) for path, (a, b) in old.items()}
        elif after is None:
            continue
        else:
            new, text = dict(after), patch.header if header is None else header
        changes = {path: (current[path], file) for path, file in new.items()}
        current |= new
        if changes == old and text == patch.header:
            patches.append(patch)
        elif changes := {path: pair for path, pair in changes.items() if pair[0] != pair[1]}:
            # The header has a list of the files, which may have changed.
            description = re.split(rb"^---\n", text, maxsplit=1, flags=re.MULTILINE)[0]
            patches.append(NewPatch(patch.id, description, changes))
    rendered = iter(render([one for one in patches if isinstance(one, NewPatch)]))
    kept = tuple(one if isinstance(one, Patch) else next(rendered) for one in patches)
    return series._replace(patches=kept), current


def walk(series: Series, released: FileLookup) -> Iterator[tuple[Patch, FileChanges]]:
    """Yield each patch with its files before and after it. Errors are those of ``file_states``."""
    steps = {path: pairwise(file_states(series, path, released(path))) for path in series.chains}
    for patch in series.patches:
        yield patch, {path: next(steps[path]) for path in patch.diffs}


def file_states(series: Series, path: str, released: GitFile | None) -> list[GitFile | None]:
    """Return a file as released and after each patch that touches it.

    Raises UsageError when ``released`` is not the content that the series is for.
    """
    contents = stages(series, path, released.content if released else None)
    mode = series.modes[path][0] or (released.mode if released else DEFAULT_MODE)
    states = [None if contents[0] is None else GitFile(contents[0], mode)]
    for patch, content in zip(series.touching(path), contents[1:], strict=True):
        diff = patch.diffs[path]
        if diff.new_mode and diff.new_mode != diff.old_mode:
            mode = diff.new_mode
        states.append(None if content is None else GitFile(content, mode))
    return states


def merge_states(
    patch_id: str, path: str, base: GitFile | None, ours: GitFile | None, theirs: GitFile | None
) -> GitFile | None:
    """Return a file after a patch that led from ``base`` to ``theirs`` and now starts at ``ours``.

    Raises CheckFailed with the conflicts.
    """
    contents = [file.content if file else None for file in (base, ours, theirs)]
    merge = merge_file(contents[0], contents[1], contents[2], ("before", "the state below", patch_id))
    if not merge.clean or (merge.content is None and theirs):
        shown = merge.shown or f"the state below does not have the file, {patch_id} changes its mode"
        raise CheckFailed(
            f"{patch_id} does not fit {path} any more, nothing was changed:\n{shown}",
            f"leave these lines as they are, or drop it first: vimectl patch drop {patch_id}",
        )
    return with_mode(merge.content, base, ours, theirs)


def with_mode(
    content: bytes | None, base: GitFile | None, ours: GitFile | None, theirs: GitFile | None
) -> GitFile | None:
    """Return merged content (None: no such file) with the mode that one of the two versions set."""
    default = base.mode if base else DEFAULT_MODE
    modes = [file.mode for file in (theirs, ours) if file and file.mode != default]
    return None if content is None else GitFile(content, modes[0] if modes else default)
