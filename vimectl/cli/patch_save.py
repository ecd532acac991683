"""`vimectl patch save | drop`: make patches from edits, and remove them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from vimectl.cli import complete
from vimectl.cli.options import DryRun
from vimectl.cli.output import CommandOutput
from vimectl.cli.patch_options import (
    AgainstOption,
    ExcludeOption,
    IncludeOption,
    StackOption,
    TargetOption,
    VersionOption,
    path_rules,
)

if TYPE_CHECKING:
    from vimectl.patches.save import SaveOutcome

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="The patch: the name of its file without .patch.",
        autocompletion=complete.patches,
    ),
]
Package = Annotated[
    str | None,
    typer.Argument(
        metavar="PACKAGE",
        help="The package; needed if the project patches several.",
        show_default=False,
        autocompletion=complete.packages,
    ),
]


def save(
    context: typer.Context,
    name: Name,
    package: Package = None,
    description: Annotated[
        str | None,
        typer.Option("--description", "-m", metavar="TEXT", help="What the patch does and why."),
    ] = None,
    include: IncludeOption = None,
    exclude: ExcludeOption = None,
    from_commit: Annotated[
        str, typer.Option(metavar="REV", help="Save this commit of a work tree instead of edits.")
    ] = "",
    against: AgainstOption = None,
    stack: StackOption = None,
    target: TargetOption = None,
    version: VersionOption = None,
    dry_run: DryRun = False,
) -> CommandOutput:
    """Save the edits of an installed package or a work tree as a patch.

    It becomes the topmost patch of your series in the project, or goes into
    the patch of this name; those above are rebased, all or none.
    """
    from vimectl.patches import own_series
    from vimectl.patches import save as saving
    from vimectl.patches.release_files import open_release
    from vimectl.util.phase_progress import show_phases

    own = own_series.find_own(own_series.choose_package(name, package, stack), stack, target, version)
    if description is None and not from_commit and name not in own.ids and sys.stdin.isatty():
        description = typer.prompt("What does the patch do? One line", err=True)
    with show_phases() as progress:
        release = open_release(against, progress) if against else None
    rules = path_rules(context, include, exclude)
    options = saving.SaveOptions(description or "", rules, from_commit, release)
    return _output(saving.save(own, name, options, dry_run), dry_run)


def drop(
    name: Name,
    package: Package = None,
    stack: StackOption = None,
    target: TargetOption = None,
    version: VersionOption = None,
    dry_run: DryRun = False,
) -> CommandOutput:
    """Revert a patch of your series, and remove it.

    The patches above it are rebased, all or none.
    """
    from vimectl.patches import own_series
    from vimectl.patches import save as saving

    own = own_series.find_own(own_series.choose_package(name, package, stack), stack, target, version)
    return _output(saving.drop(own, name, dry_run), dry_run)


def _output(found: SaveOutcome, dry_run: bool) -> CommandOutput:
    would = "would " if dry_run else ""
    lines = [f"{found.patch}: {path}" for path in found.files]
    lines += [f"{name}: {would or 'was '}{'be ' if dry_run else ''}rebased" for name in found.rebased]
    lines += [f"{would}write {path}" if dry_run else f"wrote {path}" for path in found.written]
    lines += [f"{would}remove {path}" if dry_run else f"removed {path}" for path in found.removed]
    targets = found.outcome.targets
    lines += [f"{one.target.package} {one.target.version}: {one.state}" for one in targets]
    document = {
        "patch": found.patch,
        "files": found.files,
        "rebased": found.rebased,
        "written": found.written,
        "removed": found.removed,
        "targets": [one.as_json() for one in targets],
        "changed": found.outcome.plan.changed(),
        "dry_run": dry_run,
    }
    return CommandOutput(document, lines)
