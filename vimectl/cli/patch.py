"""`vimectl patch`: apply, revert and check the patches of a stack's packages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vimectl.cli.patch_files import export, import_, lint, port
from vimectl.patches import command, series
from vimectl.util.console import JsonOption, emit_json, err, out, table

if TYPE_CHECKING:
    from vimectl.patches.plan import PatchAction
    from vimectl.patches.state import TargetStatus

app = typer.Typer(no_args_is_help=True, help="Apply, revert and check the patches of a stack's packages.")
app.command()(export)
app.command("import")(import_)
app.command()(lint)
app.command()(port)

Packages = Annotated[
    list[str] | None, typer.Argument(metavar="PACKAGE", help="Only these packages.", show_default=False)
]
StackOption = Annotated[str | None, typer.Option("--stack", help="The stack; by default the one installed.")]
TargetOption = Annotated[
    Path | None,
    typer.Option(
        "--target",
        metavar="DIR",
        help="Directory that holds the packages; a wheel for commands that only read.",
    ),
]
VersionOption = Annotated[
    str | None,
    typer.Option("--version", metavar="V", help="The package's version, if the package does not state it."),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print the changes without making them.")]
MergeOption = Annotated[
    bool, typer.Option("--merge", help="Merge your edits of the patched files (three-way, with git).")
]


@app.command("list")
def list_(packages: Packages = None, stack: StackOption = None, as_json: JsonOption = False) -> None:
    """List the available patches, by package and version."""
    found = series.list_series(packages or (), stack)
    if as_json:
        emit_json("patch.list", True, series=found)
        return
    rows = []
    for one in found:
        name = [one["package"], one["version"]]
        rows += [[*name, patch["id"], patch["description"]] for patch in one["patches"]]
        rows += [[*name, f"no {absent['id']}", absent["reason"]] for absent in one["unneeded"]]
    table("patches", ["package", "version", "patch", "what it does"], rows)


@app.command()
def apply(
    packages: Packages = None,
    stack: StackOption = None,
    target: TargetOption = None,
    version: VersionOption = None,
    merge: MergeOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Apply the patches of the stack's packages, all or none."""
    _change("apply", _classify(packages, stack, target, version), merge, dry_run, as_json)


@app.command()
def revert(
    packages: Packages = None,
    stack: StackOption = None,
    target: TargetOption = None,
    version: VersionOption = None,
    merge: MergeOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Restore every patched file as it was released, or as it was before a merge with your edits."""
    _change("revert", _classify(packages, stack, target, version), merge, dry_run, as_json)


@app.command()
def status(
    packages: Packages = None,
    stack: StackOption = None,
    target: TargetOption = None,
    version: VersionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the state of each package and patch, determined from the content of the files."""
    _show("status", _classify(packages, stack, target, version), True, as_json)


@app.command()
def verify(
    packages: Packages = None,
    stack: StackOption = None,
    target: TargetOption = None,
    version: VersionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Succeed only when every patch is applied to every file."""
    found = _classify(packages, stack, target, version)
    ok = all(one.state == "applied" for one in found)
    _show("verify", found, ok, as_json)
    if not ok:
        raise typer.Exit(1)


@app.command()
def diff(
    packages: Packages = None,
    stack: StackOption = None,
    target: TargetOption = None,
    version: VersionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print how the packages differ from their releases: patches, and any edits of the same files."""
    from vimectl.patches.edits import diff_from_release

    found = _classify(packages, stack, target, version)
    text = "".join(diff_from_release(one) for one in found)
    if as_json:
        emit_json("patch.diff", True, targets=_targets_json(found), diff=text)
    else:
        out.print(text, end="", markup=False)


def _classify(
    packages: list[str] | None, stack: str | None, target: Path | None, version: str | None
) -> list[TargetStatus]:
    """Classify the targets, after finishing or undoing interrupted changes of them."""
    found, messages = command.recover_and_classify(stack, target, packages or (), version)
    for message in messages:
        err.print(message, markup=False)
    return found


def _change(
    action: PatchAction, found: list[TargetStatus], merge: bool, dry_run: bool, as_json: bool
) -> None:
    outcome = command.change(action, found, dry_run, merge)
    changed = outcome.plan.changed()
    if as_json:
        targets = _targets_json(outcome.targets)
        emit_json(f"patch.{action}", True, targets=targets, changed=changed, dry_run=dry_run)
        return
    for one in changed:
        out.print(f"{'would change' if dry_run else 'changed'} {one['path']}", markup=False)
    if not changed:
        out.print("nothing to change")
    _print(outcome.targets)


def _show(command: str, found: list[TargetStatus], ok: bool, as_json: bool) -> None:
    if as_json:
        emit_json(f"patch.{command}", ok, targets=_targets_json(found))
    else:
        _print(found)


def _targets_json(found: list[TargetStatus]) -> list[dict[str, Any]]:
    """Return the targets as JSON, with the diff of the files that drifted."""
    return [one.as_json() | ({"diff": _diff_of_edits(one)} if one.drifted else {}) for one in found]


def _diff_of_edits(one: TargetStatus) -> str:
    from vimectl.patches.edits import diff_of_edits  # loads the patch reader, rarely needed

    return diff_of_edits(one)


def _print(found: list[TargetStatus]) -> None:
    rows = []
    for one in found:
        rows.append([one.target.package, one.target.version, one.state, str(one.target.location)])
        rows += [[f"  {patch.id}", "", patch.state, _unusual_files(patch.files)] for patch in one.patches]
    table("", ["package", "version", "state", "where"], rows)
    for one in found:
        if one.drifted:
            text = f"\n{one.target.package} was edited:\n{_diff_of_edits(one)}"
            out.print(text, end="", markup=False)


def _unusual_files(files: tuple[tuple[str, str], ...]) -> str:
    """Return the files that are not applied, unless none of the patch's files is."""
    states = {state for _, state in files}
    if states in ({"applied"}, {"not-applied"}):
        return ""
    return ", ".join(f"{path} {state}" for path, state in files if state != "applied")
