"""The output of the commands that change or check targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vime_runtime.spec.errors import UsageError

from vimectl.cli.output import CommandOutput, TextTable
from vimectl.patches import command
from vimectl.patches.selection import Selection
from vimectl.patches.transaction_journal import find_unfinished
from vimectl.util.console import VERBOSE, err

if TYPE_CHECKING:
    from vimectl.patches.plan import PatchAction
    from vimectl.patches.state import TargetStatus


def change(action: PatchAction, found: list[TargetStatus], merge: bool, dry_run: bool) -> CommandOutput:
    """Apply or revert the patches of all targets."""
    return outcome(command.change(action, found, dry_run, merge), dry_run)


def status(name: str, found: list[TargetStatus]) -> CommandOutput:
    """Show the targets; the command called ``verify`` fails unless every patch is applied."""
    ok = not others_unfinished(found) if name == "status" else all(one.complete for one in found)
    targets = targets_json(found)
    if not found:
        err.note("there are no patches here; to save your edits as one: vimectl patch save")
    elif not ok and name == "verify":
        err.note("not every patch is applied to every file; to apply them: vimectl patch apply")
    return CommandOutput({"targets": targets}, _text(found, targets), 0 if ok else 1)


def others_unfinished(found: list[TargetStatus]) -> bool:
    """Return True if a target has an unfinished change that this user cannot finish."""
    return any(one.unfinished and not one.unfinished.own for one in found)


def outcome(done: command.PatchOutcome, dry_run: bool = False) -> CommandOutput:
    """Return the output of a change."""
    for message in done.lost:
        err.note(message)
    changed = done.plan.changed()
    would = "would " if dry_run else ""
    moves = done.plan.moves
    lines = [f"{one.package}: {would}revert {name}" for one in moves for name in one.reverted]
    lines += [f"{one.package}: {would}apply {name}" for one in moves for name in one.applied]
    lines += [f"{'would change' if dry_run else 'changed'} {one['path']}" for one in changed]
    targets = targets_json(done.targets)
    steps = [{"package": m.package, "reverted": m.reverted, "applied": m.applied} for m in moves]
    return CommandOutput(
        {"targets": targets, "changed": changed, "moves": steps, "dry_run": dry_run},
        [*(lines or ["nothing to change"]), *_text(done.targets, targets)],
    )


def classify(
    packages: Sequence[str] | None,
    stack: str | None,
    series: Path | None,
    target: Path | None,
    version: str | None,
    recover: bool = False,
) -> list[TargetStatus]:
    """Classify the targets. ``recover``: finish interrupted changes of them first, otherwise report them."""
    if stack and series:
        raise UsageError("--stack and --series were both given", "give one of them")
    selection = Selection(tuple(packages or ()), stack, series, target, version)
    if recover:
        found, messages = command.recover_and_classify(selection)
    else:
        found = command.classify_unlocked(selection)
        messages = unfinished_messages(selection, [one.target.location for one in found])
    for message in messages:
        err.note(message)
    return found


def unfinished_messages(selection: Selection, locations: Sequence[Path] = ()) -> list[str]:
    """Describe the interrupted changes of a project and of some targets."""
    roots = dict.fromkeys([*command.project_roots(selection), *locations])
    return [one.text for root in roots if (one := find_unfinished(root))]


def targets_json(found: list[TargetStatus]) -> list[dict[str, Any]]:
    """Return the targets as JSON, with the diff of the files that drifted."""
    return [one.as_json() | _edits(one) for one in found]


def _edits(found: TargetStatus) -> dict[str, Any]:
    if not found.drifted:
        return {}
    from vimectl.patches.edits import diff_of_edits  # merging needs git, which is rarely needed

    return {"diff": diff_of_edits(found)}


def _text(found: list[TargetStatus], documents: list[dict[str, Any]]) -> Iterator[str | TextTable]:
    rows = []
    for one in found:
        rows.append([one.target.package, one.target.version, one.state, str(one.target.location)])
        for patch in one.patches:
            rows.append([f"  {patch.id}", "", patch.state, _unusual_files(patch.files)])
            if err.level == VERBOSE:
                rows += [[f"    {path}", "", state, ""] for path, state in patch.files]
    yield TextTable(["package", "version", "state", "where"], rows)
    for one, document in zip(found, documents, strict=True):
        name = f"{one.target.package} {one.target.version}"
        if one.note:
            yield f"{name}: {one.note}{f'; {one.hint}' if one.hint else ''}"
        if one.state == "applied" and one.patches and not one.applied:
            adopt = f"vimectl patch adopt {one.target.package}"
            yield f"{name} was patched by something else; to take it over: {adopt}"
        if "diff" in document:
            yield f"\n{one.target.package} was edited:\n{document['diff']}"


def _unusual_files(files: tuple[tuple[str, str], ...]) -> str:
    """Return the files that are not applied, unless none of the patch's files is."""
    states = {state for _, state in files}
    if states in ({"applied"}, {"not-applied"}):
        return ""
    return ", ".join(f"{path} {state}" for path, state in files if state != "applied")
