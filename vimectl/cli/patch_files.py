"""`vimectl patch import | export`: convert series."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vimectl.cli import complete
from vimectl.cli.output import CommandOutput
from vimectl.cli.patch_options import ExcludeOption, IncludeOption, path_rules
from vimectl.patches import series as series_files
from vimectl.util.new_folder import check_new_folder
from vimectl.util.phase_progress import show_phases

if TYPE_CHECKING:
    from vimectl.patches.interchange.importers import Imported


class ExportFormat(str, Enum):
    """The formats of an exported series."""

    quilt = "quilt"
    mbox = "mbox"


def export(
    form: Annotated[
        ExportFormat, typer.Option("--format", help="A folder for quilt, or a mailbox for git am.")
    ],
    target: Annotated[Path, typer.Option("--out", metavar="DIR|FILE", help="The output; must not exist.")],
    package: Annotated[
        str,
        typer.Argument(
            metavar="PACKAGE",
            help="The package of a series that vimectl ships.",
            show_default=False,
            autocompletion=complete.series_packages,
        ),
    ] = "",
    version: Annotated[
        str,
        typer.Option(
            metavar="V", help="The version of that series.", autocompletion=complete.series_versions
        ),
    ] = "",
    series: Annotated[Path | None, typer.Option(metavar="DIR", help="Any other series.")] = None,
) -> CommandOutput:
    """Write a series as a quilt series, or as a mailbox for `git am --keep-cr`."""
    from vimectl.patches.interchange.exporters import export_series

    chosen = series_files.read(series) if series else series_files.load(package, version)
    written = export_series(chosen, form.value, target)
    ids = [patch.id for patch in chosen.patches]
    mail, quilt = "git am --keep-cr --keep-non-patch", "QUILT_PATCHES=DIR quilt push -a"
    release = chosen.version or chosen.commit
    return CommandOutput(
        {"package": chosen.package, "version": release, "patches": ids, "written": written},
        [
            f"{chosen.name}: {len(ids)} patches written to {target}",
            f"to apply them: {mail if form is ExportFormat.mbox else quilt}",
        ],
    )


def import_(
    context: typer.Context,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            help="Patches, mailboxes, folders or quilt series; or a series.conf, whose lines are "
            "`work tree|patch in the image|patch in the source`.",
        ),
    ],
    target: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="The folder of the series or project; must not exist."),
    ],
    package: Annotated[
        str,
        typer.Option(
            metavar="PACKAGE", help="The package that is patched.", autocompletion=complete.packages
        ),
    ] = "",
    version: Annotated[str, typer.Option(metavar="V", help="The release that the series is for.")] = "",
    commit: Annotated[
        str,
        typer.Option(metavar="REV", help="The commit that the series is for, of the work tree --against."),
    ] = "",
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH|WHEEL|PACKAGE==VERSION",
            help="The release, if pip does not find it; a work tree for --commit, by default this one; "
            "NAME=PATH for a series.conf.",
            autocompletion=complete.releases,
        ),
    ] = None,
    module: Annotated[
        str, typer.Option(metavar="DIR", help="The folder of the package that its patches change.")
    ] = "",
    strip: Annotated[
        int | None, typer.Option("-p", metavar="N", help="Remove N leading folders from names; by default 1.")
    ] = None,
    include: IncludeOption = None,
    exclude: ExcludeOption = None,
) -> CommandOutput:
    """Import patches as a series, or a series.conf as a project.

    Each patch is applied to the release, so that blob ids and line numbers are those of the release. A
    change that does not apply is an error; files that --include and --exclude leave out are listed.
    """
    from vimectl.patches.git_tree import CommitFiles
    from vimectl.patches.interchange import importers, series_conf
    from vimectl.patches.release_files import open_release

    named = against or []
    with show_phases() as progress:
        if paths[0].suffix == ".conf":
            options = (package, version, commit, module, strip is not None, include, exclude, paths[1:])
            if any(options) or not all("=" in pair for pair in named):
                raise typer.BadParameter("a series.conf takes only --out and --against NAME=PATH")
            releases = dict(pair.split("=", 1) for pair in named)
            opener = partial(open_release, progress=progress)
            return _imported(series_conf.import_conf(paths[0], target, releases, opener), target)
        if not package or bool(version) == bool(commit) or len(named) > 1:
            raise typer.BadParameter("give --package, and --version or --commit, and one --against")
        check_new_folder(target)
        rules = path_rules(context, include, exclude)
        if commit:
            tree = CommitFiles(Path(*named), commit)
            imported = importers.import_patches(paths, tree, strip, rules)
            imported.write(target, package, commit=tree.commit, module=module)
        else:
            release = open_release(named[0] if named else f"{package}=={version}", progress)
            imported = importers.import_patches(paths, release, strip, rules)
            imported.write(target, package, version, module=module)
    return _imported({package: imported}, target)


def _imported(series: Mapping[str, Imported], written: Path) -> CommandOutput:
    patches, left_out, text = [], [], []
    for package, imported in series.items():
        for one in imported.patches:
            patches.append({"package": package, **one.as_json()})
            moved = f" ({one.offsets} hunks at another line)" if one.offsets else ""
            text.append(f"{package}: {one.id}: {', '.join(one.changes)}{moved}")
        for origin, path in imported.left_out:
            left_out.append({"from": origin, "path": path})
            text.append(f"{package}: left out: {path} of {origin}")
    text.append(f"written to {written}")
    return CommandOutput({"patches": patches, "left_out": left_out, "written": written}, text)
