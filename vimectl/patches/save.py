"""Save edits of a target as a patch of the user's own series, and drop patches from it.

The files of the series, the project file and the target change in one transaction, or nothing does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from vime_runtime.spec.errors import CheckFailed, UsageError

from vimectl.patches import content, edited_files, series_writer, transaction
from vimectl.patches.command import PatchOutcome, classify_again
from vimectl.patches.edited_files import Originals
from vimectl.patches.git_tree import CommitFiles, git_output
from vimectl.patches.interchange.description import PatchDescription, as_dep3, from_text
from vimectl.patches.own_series import OwnSeries, changing, written
from vimectl.patches.patchfile.apply import GitFile
from vimectl.patches.path_rules import PathRule, is_included
from vimectl.patches.plan import PatchPlan, make_plan
from vimectl.patches.release_files import PatchedRelease, ReleaseFiles
from vimectl.patches.restack import file_states, merge_states, restack
from vimectl.patches.series import Series
from vimectl.patches.series_writer import NewPatch
from vimectl.patches.state import classify
from vimectl.util import source_date_epoch

States = dict[str, "GitFile | None"]
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")
_EDITS = "what is saved"
_NAMES = ("diff", "--name-only", "--relative", "--no-renames", "--ignore-submodules", "--no-ext-diff", "-z")


@dataclass(frozen=True)
class SaveOptions:
    """Which edits to save, and where they come from.

    ``description`` is that of the patch, its first line the summary. ``commit`` is a revision of a work tree
    to save instead of the edits. ``against`` is the release, if pip does not find it.
    """

    description: str = ""
    rules: tuple[PathRule, ...] = ()
    commit: str = ""
    against: ReleaseFiles | None = None


@dataclass(frozen=True)
class SaveOutcome:
    """``written`` and ``removed`` are files of the series and the project; ``rebased`` the patches above that
    changed too; ``files`` those that the patch touches."""

    patch: str
    files: tuple[str, ...]
    written: tuple[Path, ...]
    removed: tuple[Path, ...]
    rebased: tuple[str, ...]
    outcome: PatchOutcome


def save(own: OwnSeries, name: str, options: SaveOptions, dry_run: bool = False) -> SaveOutcome:
    """Save the edits of a target as the patch ``name``: a new one on top, or into the one of this name.

    Later patches are rebased. The target then has the state "applied".

    Raises:
        UsageError: the name is not one for a file, a new patch has no description, or no such commit.
        CheckFailed: there are no edits, a patch is not applied, or a later one changes the same lines.
        MissingRequirement: git is not installed, or the release cannot be fetched.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a patch file", "use letters, digits and '.+-_'")
    if name not in own.ids and not options.description and not options.commit:
        raise UsageError(f"the patch {name} needs a description", "give one with --description TEXT")
    with changing(own, dry_run):
        own = replace(own, status=classify_again(own.status))
        top, new = _edits(own, name, options)
        released = _released(own, top)
        header = _header(own, name, options)
        if name in own.ids:
            patch_id = own.id_in_stack(name)
            touched = {*own.series.find(patch_id).files, *new}
            after = _states_at(own, patch_id, touched, released)
            after |= {
                path: merge_states(_EDITS, path, top[path], after[path], file) for path, file in new.items()
            }
            changed, states = restack(own.series, released, patch_id, after, header)
            if patch_id not in [patch.id for patch in changed.patches]:
                raise CheckFailed(f"{name} would be empty", f"vimectl patch drop {name} {own.package}")
            different = [path for path, file in new.items() if states[path] != file]
            if different:
                raise CheckFailed(
                    f"{different[0]}: these edits depend on patches above {name}; nothing was changed",
                    "save them as a new patch on top",
                )
        else:
            changes = {path: (top[path], file) for path, file in new.items()}
            (patch,) = series_writer.render([NewPatch(name, header, changes)])
            changed = own.series._replace(patches=(*own.series.patches, patch))
        return _execute("save", own, name, changed, dry_run)


def drop(own: OwnSeries, name: str, dry_run: bool = False) -> SaveOutcome:
    """Revert a patch of the user's own series and remove it; later patches are rebased.

    Raises:
        UsageError: there is no such patch.
        CheckFailed: a later patch changes the same lines, or a file was edited.
        MissingRequirement: git is not installed, or the release cannot be fetched.
    """
    patch_id = own.id_in_stack(name)
    with changing(own, dry_run):
        own = replace(own, status=classify_again(own.status))
        if own.status.state == "applied" and own.status.applied is None:
            raise CheckFailed(
                f"{own.package} was patched by something else", f"vimectl patch adopt {own.package}"
            )
        changed, _ = restack(own.series, _released(own, {}), patch_id, None)
        return _execute("drop", own, name, changed, dry_run)


def _edits(own: OwnSeries, name: str, options: SaveOptions) -> tuple[States, States]:
    """Return the files to save as all patches leave them, and as they are to be. Raises CheckFailed."""
    target, whole = own.status.target, own.series
    positions = {path: whole.position(path, found) for path, found in own.status.found.items()}
    below = [path for path, number in positions.items() if number not in (None, len(whole.touching(path)))]
    if below and not options.commit:
        raise CheckFailed(
            f"{below[0]} does not have every patch of {whole.name}, so edits of it cannot be told apart",
            f"vimectl patch apply {own.package}",
        )
    top: States = {}
    new: States = {}
    if options.commit:
        commits = (CommitFiles(target.location, revision) for revision in _range(options.commit))
        before, after = map(PatchedRelease, commits)
        changed = git_output(target.location, *_NAMES, *_range(options.commit)) or b""
        names = map(os.fsdecode, changed.split(b"\0")[:-1])
        for path in (name for name in names if is_included(name, options.rules)):
            old = before.file(path)
            top[path] = _top(own, path) if path in whole.chains else old
            new[path] = merge_states(_EDITS, path, old, top[path], after.file(path))
    else:
        originals = Originals(target, options.against)
        kept = (own.directory, own.project)
        for path in edited_files.find(target, options.rules):
            file = target.location / path
            if positions.get(path) is None and not any(file == one or one in file.parents for one in kept):
                top[path] = _top(own, path) if path in whole.chains else originals.read(path)
                new[path] = edited_files.current(target, path)
        left = [path for path in own.status.drifted if path not in new]
        if left:
            message = f"{left[0]}, a file of {whole.name}, was edited too"
            raise CheckFailed(message, "include it, or undo the edit")
    new = {path: file for path, file in new.items() if file != top[path]}
    if not new and not (name in own.ids and options.description):
        raise CheckFailed(f"nothing of {own.package} was edited in {target.location}", "edit its files first")
    return top, new


def _range(revision: str) -> tuple[str, str]:
    return f"{revision}^", revision


def _top(own: OwnSeries, path: str) -> GitFile | None:
    """Return a file of the series as the last patch leaves it."""
    return file_states(own.series, path, _released_file(own, path))[-1]


def _released_file(own: OwnSeries, path: str) -> GitFile | None:
    status = own.status
    data = content.released(status.target, own.series, path, status.applied)
    mode = own.series.touching(path)[0].diffs[path].old_mode
    return None if data is None else GitFile(data, mode or "100644")


def _released(own: OwnSeries, top: States) -> States:
    """Return the files of the series as released, and those that it does not touch yet."""
    return {**top, **{path: _released_file(own, path) for path in own.series.chains}}


def _states_at(own: OwnSeries, patch_id: str, paths: Iterable[str], released: States) -> States:
    """Return files as the patch ``patch_id`` leaves them."""
    ids = [patch.id for patch in own.series.patches]
    states: States = {}
    for path in paths:
        touching = [ids.index(patch.id) for patch in own.series.touching(path)]
        number = sum(index <= ids.index(patch_id) for index in touching)
        states[path] = file_states(own.series, path, released[path])[number] if touching else released[path]
    return states


def _header(own: OwnSeries, name: str, options: SaveOptions) -> bytes:
    """Return the DEP-3 header of the patch."""
    place = own.status.target.location
    if name in own.ids:
        old = own.series.find(own.id_in_stack(name)).header.decode("utf-8", "surrogateescape")
        description = from_text(old, name)
    else:
        commit = options.commit
        author = _of_commit(place, commit, "%an <%ae>") if commit else _git_user(own.project.parent)
        fields = {"Author": author.decode("utf-8", "replace").strip()} if author else {"Origin": "vendor"}
        description = PatchDescription(name, "", {**fields, "Forwarded": "no"})
    text = options.description
    if options.commit and not text:
        text = _of_commit(place, options.commit, "%B").decode("utf-8", "replace")
    if text:
        subject, _, body = text.strip().partition("\n")
        description = replace(description, subject=subject, body=body.strip("\n"))
    today = source_date_epoch.now().date().isoformat()
    description = replace(description, fields={**description.fields, "Last-Update": today})
    return as_dep3(description).encode("utf-8", "surrogateescape")


def _of_commit(directory: Path, revision: str, form: str) -> bytes:
    """Return what a format shows of a commit.

    Unlike `git log`, rev-list has no configuration: not that of signatures, which are checked by a program.
    """
    found = git_output(directory, "rev-list", "--max-count=1", f"--format={form}", revision) or b""
    return found.partition(b"\n")[2]  # without the line that names the commit


def _git_user(directory: Path) -> bytes | None:
    """Return the name and address that git would give a commit, or None."""
    found = git_output(directory, "var", "GIT_AUTHOR_IDENT")
    return found.rpartition(b" ")[0].rpartition(b" ")[0] if found else None


def _execute(action: str, own: OwnSeries, name: str, changed: Series, dry_run: bool) -> SaveOutcome:
    """Write the new series, and bring the target to it if it had the old one."""
    target = own.status.target
    texts = {patch.id: patch.text for patch in own.series.patches}
    own_ids = dict(zip([patch.id for patch in own.series.patches[own.below :]], own.ids, strict=True))
    patches = {own_ids.get(patch.id, patch.id): patch for patch in changed.patches[own.below :]}
    steps = written(own, patches)
    status = classify(target, changed.checked())
    plan = PatchPlan((), ())
    if action == "save" or own.status.state != "pristine":
        plan = make_plan("apply", [status])
    if not dry_run:
        transaction.execute(action, [*steps, *plan.steps], plan.folders)
        status = classify(target, changed)
    rebased = [own_ids.get(p.id, p.id) for p in changed.patches if texts.get(p.id) not in (None, p.text)]
    patch = patches[name] if name in patches else own.series.find(own.id_in_stack(name))
    return SaveOutcome(
        name,
        tuple(patch.files),
        tuple(step.location / step.path for step in steps if step.after is not None),
        tuple(step.location / step.path for step in steps if step.after is None),
        tuple(one for one in rebased if one != name),
        PatchOutcome(plan, [status]),
    )
