"""`vimectl patch`: apply, revert and check the patches of a stack's packages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from vimectl.cli.output import CommandOutput, TextTable
from vimectl.cli.patch_files import export, import_, lint
from vimectl.cli.patch_port import port
from vimectl.patches import command, series
from vimectl.util.console import err

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
MergeOption = Annotated[
    bool, typer.Option("--merge", help="Merge your edits of the patched files (three-way, with git).")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print the changes without making them.")]


@app.command("list")
def list_(packages: Packages = None, stack: StackOption = None) -> CommandOutput:
    """List the available patches, by package and version."""
    found = series.list_series(packages or (), stack)
    rows = []
    for one in found:
        name = [one["package"], one["version"]]
        rows += [[*name, patch["id"], patch["description"]] for patch in one["patches"]]
        rows += [[*name, f"no {absent['id']}", absent["reason"]] for absent in one["unneeded"]]
    table = TextTable(["package", "version", "patch", "what it does"], rows, "patches")
    return CommandOutput({"series": found}, [table])


@app.command("revert", help="Restore every patched file as it was before the patches: released, or edited.")
@app.command("apply", help="Apply the patches of the stack's packages, all or none.")
def change(
    context: typer.Context,
    packages: Packages = None,
    stack: StackOption = None,
    target: TargetOption = None,
    version: VersionOption = None,
    merge: MergeOption = False,
    dry_run: DryRunOption = False,
) -> CommandOutput:
    found = _classify(packages, stack, target, version)
    outcome = command.change(cast("PatchAction", context.info_name), found, dry_run, merge)
    changed = outcome.plan.changed()
    lines = [f"{'would change' if dry_run else 'changed'} {one['path']}" for one in changed]
    targets = _targets_json(outcome.targets)
    return CommandOutput(
        {"targets": targets, "changed": changed, "dry_run": dry_run},
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
    target: TargetOption = None,
    version: VersionOption = None,
) -> CommandOutput:
    found = _classify(packages, stack, target, version)
    ok = context.info_name == "status" or all(one.state == "applied" for one in found)
    targets = _targets_json(found)
    return CommandOutput({"targets": targets}, _text(found, targets), 0 if ok else 1)


@app.command()
def diff(
    packages: Packages = None,
    stack: StackOption = None,
    target: TargetOption = None,
    version: VersionOption = None,
) -> CommandOutput:
    """Print how the packages differ from their releases: patches, and any edits of the same files."""
    from vimectl.patches.edits import diff_from_release

    found = _classify(packages, stack, target, version)
    text = "".join(diff_from_release(one) for one in found)
    return CommandOutput({"targets": _targets_json(found), "diff": text}, [text] if text else [])


def _classify(
    packages: list[str] | None, stack: str | None, target: Path | None, version: str | None
) -> list[TargetStatus]:
    """Classify the targets, after finishing or undoing interrupted changes of them."""
    found, messages = command.recover_and_classify(stack, target, packages or (), version)
    for message in messages:
        err.print(message, markup=False)
    return found


def _targets_json(found: list[TargetStatus]) -> list[dict[str, Any]]:
    """Return the targets as JSON, with the diff of the files that drifted."""
    documents = []
    for one in found:
        documents.append(one.as_json())
        if one.drifted:
            from vimectl.patches.edits import diff_of_edits  # loads the patch reader, rarely needed

            documents[-1]["diff"] = diff_of_edits(one)
    return documents


def _text(found: list[TargetStatus], documents: list[dict[str, Any]]) -> Iterator[str | TextTable]:
    rows = []
    for one in found:
        rows.append([one.target.package, one.target.version, one.state, str(one.target.location)])
        rows += [[f"  {patch.id}", "", patch.state, _unusual_files(patch.files)] for patch in one.patches]
    yield TextTable(["package", "version", "state", "where"], rows)
    for document in documents:
        if "diff" in document:
            yield f"\n{document['package']} was edited:\n{document['diff']}"


def _unusual_files(files: tuple[tuple[str, str], ...]) -> str:
    """Return the files that are not applied, unless none of the patch's files is."""
    states = {state for _, state in files}
    if states in ({"applied"}, {"not-applied"}):
        return ""
    return ", ".join(f"{path} {state}" for path, state in files if state != "applied")
