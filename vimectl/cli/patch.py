"""`vimectl patch`: keep patches on packages: apply, revert, check, save and drop them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from vimectl.cli import patch_results
from vimectl.cli.output import CommandOutput, TextTable
from vimectl.cli.patch_files import export, import_
from vimectl.cli.patch_lint import lint
from vimectl.cli.patch_options import (
    DryRunOption,
    InOrder,
    Packages,
    SeriesOption,
    StackOption,
    TargetOption,
    VersionOption,
)
from vimectl.cli.patch_port import port
from vimectl.cli.patch_save import drop, save
from vimectl.patches import command
from vimectl.patches.selection import describe

if TYPE_CHECKING:
    from vimectl.patches.plan import PatchAction
    from vimectl.patches.series import Series

app = typer.Typer(no_args_is_help=True, help="Keep patches on packages: apply, revert, check and save them.")
app.command()(export)
app.command("import", cls=InOrder)(import_)
app.command()(lint)
app.command()(port)
app.command(cls=InOrder)(save)
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
    found = patch_results.classify(packages, stack, series, target, version)
    return patch_results.change(cast("PatchAction", context.info_name), found, merge, dry_run)


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
    found = patch_results.classify(packages, stack, series, target, version)
    return patch_results.outcome(command.adopt(found))


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
    found = patch_results.classify(packages, stack, series, target, version)
    return patch_results.status(str(context.info_name), found)


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

    found = patch_results.classify(packages, stack, series, target, version)
    text = "".join(diff_from_release(one) for one in found)
    return CommandOutput({"targets": patch_results.targets_json(found), "diff": text}, [text] if text else [])
