"""`vimectl patch`: keep patches on packages: apply, revert, check, save and drop them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from vimectl.cli.output import CommandOutput, TextTable
from vimectl.cli.patch_files import InOrder, export, import_
from vimectl.cli.patch_lint import lint
from vimectl.cli.patch_options import (
    DryRunOption,
    Packages,
    SeriesOption,
    StackOption,
    TargetOption,
    VersionOption,
)
from vimectl.cli.patch_port import port
from vimectl.cli.patch_save import drop, save
from vimectl.patches import command
from vimectl.patches.selection import Selection, describe
from vimectl.util.console import err

if TYPE_CHECKING:
    from vimectl.patches.plan import PatchAction
    from vimectl.patches.series import Series
    from vimectl.patches.state import TargetStatus

app = typer.Typer(no_args_is_help=True, help="Keep patches on packages: apply, revert, check and save them.")
app.command()(export)
app.command("import", cls=InOrder)(import_)
app.command()(lint)
app.command()(port)
app.command()(save)
app.command()(drop)

MergeOption = Annotated[
    bool, typer.Option("--merge", help="Merge your edits of the patched files (three-way, with git).")
]


@app.command("list")
def list_(packages: Packages = None, stack: StackOption = None) -> CommandOutput:
    """List the available patches, by package and version."""
    found = [_series_json(one) for one in describe(packages or (), stack)]
    rows = []
    for one in found:
        name = [one["package"], one["version"]]
        rows += [[*name, patch["id"], patch["description"]] for patch in one["patches"]]
        rows += [[*name, f"no {absent['id']}", absent["reason"]] for absent in one["unneeded"]]
    table = TextTable(["package", "version", "patch", "what it does"], rows, "patches")
    return CommandOutput({"series": found}, [table])


def _series_json(one: Series) -> dict[str, Any]:
    from vimectl.patches.interchange.description import from_text

    patches = []
    for patch in one.patches:
        description = from_text(patch.header.decode("utf-8", "replace"), patch.id)
        patches.append({"id": patch.id, "description": description.subject, "files": patch.files})
    return {
        "package": one.package,
        "version": one.version or one.commit,
        "patches": patches,
        "unneeded": [{"id": name, "reason": reason} for name, reason in one.unneeded.items()],
    }


@app.command("revert", help="Restore the original files, byte for byte, all or none.")
@app.command(
    "apply", help="Bring the packages to the state that the stack or project file says, all or none."
)
def change(
    context: typer.Context,
    packages: Packages = None,
    stack: StackOption = None,
    series: SeriesOption = None,
    target: TargetOption = None,
    version: VersionOption = None,
    merge: MergeOption = False,
    dry_run: DryRunOption = False,
) -> CommandOutput:
    found = _classify(packages, stack, series, target, version)
    outcome = command.change(cast("PatchAction", context.info_name), found, dry_run, merge)
    return _outcome(outcome, dry_run)


@app.command()
def adopt(
    packages: Packages = None,
    stack: StackOption = None,
    series: SeriesOption = None,
    target: TargetOption = None,
    version: VersionOption = None,
) -> CommandOutput:
    """Take over patches that something else applied, so that vimectl can change and revert them.

    No source file changes. With --series it can be an older series;
    `vimectl patch apply` then continues to the present one.
    """
    return _outcome(command.adopt(_classify(packages, stack, series, target, version)))


def _outcome(outcome: command.PatchOutcome, dry_run: bool = False) -> CommandOutput:
    changed = outcome.plan.changed()
    would = "would " if dry_run else ""
    moves = outcome.plan.moves
    lines = [f"{one.package}: {would}revert {name}" for one in moves for name in one.reverted]
    lines += [f"{one.package}: {would}apply {name}" for one in moves for name in one.applied]
    lines += [f"{'would change' if dry_run else 'changed'} {one['path']}" for one in changed]
    targets = _targets_json(outcome.targets)
    steps = [{"package": m.package, "reverted": m.reverted, "applied": m.applied} for m in moves]
    return CommandOutput(
        {"targets": targets, "changed": changed, "moves": steps, "dry_run": dry_run},
        [*(lines or ["nothing to change"]), *_text(outcome.targets, targets)],
    )


@app.command("verify", help="Succeed only when every patch is applied to every file.")
@app.command(
    "status", help="Show the state of each package and patch, determined from the content of the files."
)
def status(
    context: typer.Context,
    packages: Packages = None,
    stack: StackOption = None,
    series: SeriesOption = None,
    target: TargetOption = None,
    version: VersionOption = None,
) -> CommandOutput:
    found = _classify(packages, stack, series, target, version)
    ok = context.info_name == "status" or all(one.state == "applied" for one in found)
    targets = _targets_json(found)
    return CommandOutput({"targets": targets}, _text(found, targets), 0 if ok else 1)


@app.command()
def diff(
    packages: Packages = None,
    stack: StackOption = None,
    series: SeriesOption = None,
    target: TargetOption = None,
    version: VersionOption = None,
) -> CommandOutput:
    """Print how the packages differ from their releases: patches, and any edits of the same files."""
    from vimectl.patches.edits import diff_from_release

    found = _classify(packages, stack, series, target, version)
    text = "".join(diff_from_release(one) for one in found)
    return CommandOutput({"targets": _targets_json(found), "diff": text}, [text] if text else [])


def _classify(
    packages: list[str] | None,
    stack: str | None,
    series: Path | None,
    target: Path | None,
    version: str | None,
) -> list[TargetStatus]:
    """Classify the targets, after finishing or undoing interrupted changes of them."""
    if stack and series:
        raise typer.BadParameter("give --stack or --series, not both")
    selection = Selection(tuple(packages or ()), stack, series, target, version)
    found, messages = command.recover_and_classify(selection)
    for message in messages:
        err.print(message, markup=False)
    return found


def _targets_json(found: list[TargetStatus]) -> list[dict[str, Any]]:
    """Return the targets as JSON, with the diff of the files that drifted."""
    documents = []
    for one in found:
        documents.append(one.as_json())
        if one.drifted:
            from vimectl.patches.edits import diff_of_edits  # merging needs git, which is rarely needed

            documents[-1]["diff"] = diff_of_edits(one)
    return documents


def _text(found: list[TargetStatus], documents: list[dict[str, Any]]) -> Iterator[str | TextTable]:
    rows = []
    for one in found:
        rows.append([one.target.package, one.target.version, one.state, str(one.target.location)])
        rows += [[f"  {patch.id}", "", patch.state, _unusual_files(patch.files)] for patch in one.patches]
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
