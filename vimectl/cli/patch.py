"""`vimectl patch`: put the packages of a stack into the known state, prove it, take it back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vimectl.cli.interchange import export, import_
from vimectl.cli.lint import lint
from vimectl.cli.port import port
from vimectl.util.console import JsonOption, emit_json, err, out, table

if TYPE_CHECKING:
    from vimectl.patches import TargetStatus
    from vimectl.patches.plan import Action

app = typer.Typer(
    no_args_is_help=True, help="Put the packages of a stack into the known state, prove it, take it back."
)
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
        "--target", metavar="DIR", help="Directory that holds the packages; to look at also a wheel."
    ),
]
VersionOption = Annotated[
    str | None,
    typer.Option("--version", metavar="V", help="The package's version, where it does not state it."),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print what would be changed, change nothing.")]
MergeOption = Annotated[
    bool, typer.Option("--merge", help="Merge the edits of files that somebody edited (three ways, by git).")
]


@app.command("list")
def list_(packages: Packages = None, stack: StackOption = None, as_json: JsonOption = False) -> None:
    """List the patches there are, by package and version."""
    from vimectl.patches import catalog

    found = catalog.listing(packages or (), stack)
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
    _change("apply", _find(packages, stack, target, version), merge, dry_run, as_json)


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
    """Take the patches back: every file is again what was released, or what was edited before a merge."""
    _change("revert", _find(packages, stack, target, version), merge, dry_run, as_json)


@app.command()
def status(
    packages: Packages = None,
    stack: StackOption = None,
    target: TargetOption = None,
    version: VersionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the state of each package and patch, judged by the content of the files."""
    _show("status", _find(packages, stack, target, version), True, as_json)


@app.command()
def verify(
    packages: Packages = None,
    stack: StackOption = None,
    target: TargetOption = None,
    version: VersionOption = None,
    as_json: JsonOption = False,
) -> None:
    """Succeed only when every patch is applied to every file."""
    found = _find(packages, stack, target, version)
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
    """Print how the packages differ from their releases: patches and anybody's edits of the same files."""
    from vimectl.patches import from_release

    found = _find(packages, stack, target, version)
    text = "".join(from_release(one) for one in found)
    if as_json:
        emit_json("patch.diff", True, targets=_documents(found), diff=text)
    else:
        out.print(text, end="", markup=False)


def _find(
    packages: list[str] | None, stack: str | None, target: Path | None, version: str | None
) -> list[TargetStatus]:
    """Judge the targets, after finishing what an interrupted command left in them."""
    from vimectl import patches

    found, messages = patches.recovered(stack, target, packages or (), version)
    for message in messages:
        err.print(message, markup=False)
    return found


def _change(action: Action, found: list[TargetStatus], merge: bool, dry_run: bool, as_json: bool) -> None:
    from vimectl import patches

    outcome = patches.change(action, found, dry_run, merge)
    changed = outcome.plan.changed()
    if as_json:
        targets = _documents(outcome.targets)
        emit_json(f"patch.{action}", True, targets=targets, changed=changed, dry_run=dry_run)
        return
    for one in changed:
        out.print(f"{'would change' if dry_run else 'changed'} {one['path']}", markup=False)
    if not changed:
        out.print("nothing to change")
    _print(outcome.targets)


def _show(command: str, found: list[TargetStatus], ok: bool, as_json: bool) -> None:
    if as_json:
        emit_json(f"patch.{command}", ok, targets=_documents(found))
    else:
        _print(found)


def _documents(found: list[TargetStatus]) -> list[dict[str, Any]]:
    """The targets as JSON, with the diff of the files that drifted."""
    return [one.as_json() | ({"diff": _edits(one)} if one.drifted else {}) for one in found]


def _edits(one: TargetStatus) -> str:
    from vimectl.patches import edits

    return edits(one)


def _print(found: list[TargetStatus]) -> None:
    rows = []
    for one in found:
        rows.append([one.target.package, one.target.version, one.state, str(one.target.location)])
        rows += [[f"  {patch.id}", "", patch.state, _odd_files(patch.files)] for patch in one.patches]
    table("", ["package", "version", "state", "where"], rows)
    for one in found:
        if one.drifted:
            out.print(f"\n{one.target.package} was edited:\n{_edits(one)}", end="", markup=False)


def _odd_files(files: tuple[tuple[str, str], ...]) -> str:
    """The files that keep a patch from being plainly applied or not applied as a whole."""
    states = {state for _, state in files}
    if states in ({"applied"}, {"not-applied"}):
        return ""
    return ", ".join(f"{path} {state}" for path, state in files if state != "applied")
