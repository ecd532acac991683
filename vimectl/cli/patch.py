"""`vimectl patch`: keep patches on packages: apply, revert, check, save and drop them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from vimectl.cli import patch_results
from vimectl.cli.help_text import CommandGroup, epilog
from vimectl.cli.options import DryRun
from vimectl.cli.output import CommandOutput, TextTable
from vimectl.cli.patch_files import export, import_
from vimectl.cli.patch_lint import lint
from vimectl.cli.patch_options import (
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
from vimectl.patches.selection import Selection, describe
from vimectl.util.console import FileText, err

if TYPE_CHECKING:
    from vimectl.patches.plan import PatchAction
    from vimectl.patches.series import Series

MergeOption = Annotated[
    bool, typer.Option("--merge", help="Merge your edits of the patched files (three-way, with git).")
]


def list_(packages: Packages = None, stack: StackOption = None) -> CommandOutput:
    """List the available patches."""
    selection = Selection(tuple(packages or ()), stack)
    for message in patch_results.unfinished_messages(selection, selection.locations()):
        err.note(message)
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


def change(
    context: typer.Context,
    packages: Packages = None,
    stack: StackOption = None,
    series: SeriesOption = None,
    target: TargetOption = None,
    version: VersionOption = None,
    merge: MergeOption = False,
    dry_run: DryRun = False,
) -> CommandOutput:
    found = patch_results.classify(packages, stack, series, target, version, recover=not dry_run)
    return patch_results.change(cast("PatchAction", context.info_name), found, merge, dry_run)


def adopt(
    packages: Packages = None,
    stack: StackOption = None,
    series: SeriesOption = None,
    target: TargetOption = None,
    version: VersionOption = None,
) -> CommandOutput:
    """Take over patches that something else applied.

    vimectl can then change and revert them. No source file changes. With --series it can be an older series;
    `vimectl patch apply` then continues to the present one.
    """
    found = patch_results.classify(packages, stack, series, target, version, recover=True)
    return patch_results.outcome(command.adopt(found))


def recover(
    packages: Packages = None,
    stack: StackOption = None,
    series: SeriesOption = None,
    target: TargetOption = None,
    version: VersionOption = None,
) -> CommandOutput:
    """Finish or undo what an interrupted command of yours left.

    apply and revert do that first too.
    """
    found = patch_results.classify(packages, stack, series, target, version, recover=True)
    return patch_results.status("status", found)


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


def diff(
    packages: Packages = None,
    stack: StackOption = None,
    series: SeriesOption = None,
    target: TargetOption = None,
    version: VersionOption = None,
) -> CommandOutput:
    """Print how the packages differ from their releases.

    These are patches, and any edits of the same files.
    """
    from vimectl.patches.edits import diff_from_release

    found = patch_results.classify(packages, stack, series, target, version)
    text = "".join(diff_from_release(one) for one in found)
    return CommandOutput(
        {"targets": patch_results.targets_json(found), "diff": text},
        [FileText(text)] if text else [],
        int(patch_results.others_unfinished(found)),
    )


# In the order in which a user needs them.
app = CommandGroup(help="Keep patches on packages: apply, revert, check and save them.")
app.command("list", epilog=epilog("vimectl patch list", "vimectl patch list vllm --stack ascend-0.22"))(list_)
app.command(
    "status",
    help="Show the state of each package and patch.\n\nIt is determined from the content of the files.",
    epilog=epilog(
        "vimectl patch status",
        "vimectl patch status -v                              # also every file",
        "vimectl patch status vllm --target src --version 0.22.1",
        failed="an interrupted change of another user is unfinished",
    ),
)(status)
app.command(
    "apply",
    help="Apply the patches of the stack or project, all or none.\n\n"
    "The packages get the state that the stack or project file says.",
    epilog=epilog("vimectl patch apply --dry-run", "vimectl patch apply", "vimectl patch apply vllm --merge"),
)(change)
app.command(
    "verify",
    help="Check that every patch is applied to every file.",
    epilog=epilog(
        "vimectl patch verify",
        "vimectl patch verify --json",
        done="every patch is applied",
        failed="a patch is not, or not to every file",
    ),
)(status)
app.command(
    "revert",
    help="Restore the original files, byte for byte, all or none.",
    epilog=epilog("vimectl patch revert", "vimectl patch revert vllm --dry-run"),
)(change)
app.command(epilog=epilog("vimectl patch diff", "vimectl patch diff vllm > vllm.diff"))(diff)
app.command(
    cls=InOrder,
    epilog=epilog(
        'vimectl patch save fix-logprobs vllm -m "Return log-probs of the prompt."',
        "vimectl patch save fix-logprobs --dry-run",
    ),
)(save)
app.command(epilog=epilog("vimectl patch drop fix-logprobs vllm"))(drop)
app.command(
    "import",
    cls=InOrder,
    epilog=epilog(
        "vimectl patch import ours/*.patch --package vllm --version 0.22.1 --out patches",
        "vimectl patch import series.conf --out project --against vllm=../vllm",
    ),
)(import_)
app.command(
    epilog=epilog(
        "vimectl patch port vllm --from 0.22.1 --to 0.23.0",
        "vimectl patch port vllm --series patches --to newest",
        done="the new series is written",
        failed="there are conflicts, which are written with markers",
    )
)(port)
app.command(
    epilog=epilog(
        "vimectl patch lint patches",
        "vimectl patch lint patches --against vllm==0.22.1",
        "vimectl patch lint fix.patch --fix",
        done="there are no errors; warnings are possible",
        failed="there are errors",
    )
)(lint)
app.command(
    epilog=epilog(
        "vimectl patch export vllm --version 0.22.1 --format mbox --out vllm.mbox",
        "vimectl patch export --series patches --format quilt --out quilt",
    )
)(export)
app.command(epilog=epilog("vimectl patch adopt vllm", "vimectl patch adopt --series older"))(adopt)
app.command(epilog=epilog("vimectl patch recover"))(recover)
