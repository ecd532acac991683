"""Run the port command: open both releases, port the series, and write the new series or its conflicts."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from vime_runtime.spec.errors import MissingRequirement, UsageError

from vimectl.patches import series as series_files
from vimectl.patches import target
from vimectl.patches.blobs import id_of
from vimectl.patches.git_commands import FileChanges
from vimectl.patches.interchange.description import as_dep3, from_text
from vimectl.patches.patchfile.apply import GitFile
from vimectl.patches.port.conflict_folder import README, Resolutions, write_conflicts
from vimectl.patches.port.rebase import PatchPort, rebase
from vimectl.patches.release_files import ReleaseFiles, open_path
from vimectl.patches.releases import finder
from vimectl.patches.releases.download import DownloadProgress, no_progress
from vimectl.patches.releases.index import parse_file_name
from vimectl.patches.series import Series
from vimectl.patches.series_writer import NewPatch, write_series
from vimectl.stacks.versions import matches

NEWEST = "newest"


@dataclass(frozen=True)
class PortOutcome:
    """``written`` is the new series, or None with conflicts. ``conflicts`` is their folder, and ``command``
    the command that continues after they are resolved."""

    package: str
    old: str
    new: str
    patches: list[PatchPort]
    written: Path | None = None
    conflicts: Path | None = None
    command: str = ""


def port_series(
    package: str,
    old: str,
    new: str,
    sources: Sequence[Path] = (),
    out: Path | None = None,
    resolved: Path | None = None,
    directory: Path | None = None,
    progress: DownloadProgress = no_progress,
) -> PortOutcome:
    """Port the series of a package for version ``old`` to version ``new``, or to the newest release.

    Args:
        sources: the old and the new release, as folder, wheel or source archive. A single one is whichever
            release it contains. Missing ones come from pip's sources.
        out: the folder of the new series, by default ``<package>-<new>`` in the working directory;
            conflicts are written to a folder with the suffix ``.conflicts``.
        resolved: the conflict folder of an earlier call, with the user's edits.
        directory: the folder of the series, if vimectl does not ship it.
        progress: called during the download of a whole file.

    Raises:
        UsageError: no such series or release, or an output folder exists.
        CheckFailed: the old release is not the one that the series is for.
        MissingRequirement: a release cannot be fetched, or git is not installed.
    """
    series = series_files.find(package, old, directory)
    if new == NEWEST:
        new = finder.versions(package)[-1]
    out = out or Path(f"{package}-{new}")
    if out.name in ("", ".."):  # a name is needed for the conflict folder
        out = Path(os.path.abspath(out))
    conflicts = resolved or out.with_name(f"{out.name}.conflicts")
    for path in (out, *(() if resolved else (conflicts,))):
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            hint = "name another directory with --out DIR, or remove this one first"
            if path == conflicts:
                hint = f"continue with --resolved {shlex.quote(str(path))}, or remove it to start over"
            raise UsageError(f"{path}: exists already", hint)
    if resolved and not (resolved / README).is_file():
        raise UsageError(
            f"{resolved}: not a folder that vimectl patch port made for conflicts",
            "without --resolved the conflicts are written again",
        )
    before, after = _open_releases(series, new, sources, progress)
    patches = rebase(series, new, before, after, Resolutions(conflicts))
    found = [(p.id, file) for p in patches for file in p.files if file.result == "conflict"]
    if not found:
        _write(out, series, new, patches)
        return PortOutcome(package, old, new, patches, written=out)
    words = ["vimectl", "patch", "port", package, "--from", old, "--to", new]
    words += [word for path in sources for word in ("--source", str(path))]
    words += ["--series", str(directory)] if directory else []
    command = shlex.join([*words, "--out", str(out), "--resolved", str(conflicts)])
    try:
        write_conflicts(conflicts, found, f"{package} {old} to {new}", command)
    except OSError as e:
        hint = "name another place with --out DIR"
        raise MissingRequirement(f"{conflicts} cannot be written: {e.strerror}", hint) from e
    return PortOutcome(package, old, new, patches, conflicts=conflicts, command=command)


def _open_releases(
    series: Series, new: str, given: Sequence[Path], progress: DownloadProgress
) -> tuple[ReleaseFiles, ReleaseFiles]:
    if len(given) > 2:
        raise UsageError(f"{len(given)} times --source", "at most two: the old release, then the new one")
    paths: list[Path | None] = [*given, None, None][:2]
    if len(given) == 1:
        files = open_path(given[0])
        if any(id_of(files.read(path)) != chain[0] for path, chain in series.chains.items()):
            paths.reverse()
    before, after = (
        _open(path, series, version) if path else finder.find(series.package, version, progress)
        for path, version in zip(paths, (series.version, new), strict=True)
    )
    return before, after


def _open(path: Path, series: Series, version: str) -> ReleaseFiles:
    """Open a release that the user named. Raises UsageError when it states another version."""
    stated = _stated_version(path, series)
    if stated and not matches(stated, version):
        raise UsageError(f"{path}: is {series.package} {stated}, not {version}", "name the right release")
    return open_path(path)


def _stated_version(path: Path, series: Series) -> str | None:
    if not path.is_dir():
        file = parse_file_name(path.name, "")
        return file.version if file else None
    try:
        found = target.find_at(path, series.package, series.module)
    except UsageError:  # it states none
        return None
    return found.version if found else None


def _write(out: Path, series: Series, version: str, ports: Sequence[PatchPort]) -> None:
    """Write the new series."""
    today = datetime.now(timezone.utc).date().isoformat()
    patches = [
        NewPatch(port.id, _header(series, port.id, today), _changes(port))
        for port in ports
        if not port.left_out
    ]
    unneeded = series.unneeded | {port.id[5:]: port.left_out for port in ports if port.left_out}
    for patch in patches:  # two patches may have the same slug
        unneeded.pop(patch.id[5:], None)
    comment = (
        f"Patches for the released {series.package} {version}, in the order in which they apply;\n"
        f"ported from those for {series.version}."
    )
    write_series(out, comment, series.package, version, series.module, patches, unneeded)


def _changes(port: PatchPort) -> FileChanges:
    """Return the files that the patch still changes, before and after."""
    states = {
        file.path: tuple(
            None if content is None else GitFile(content, mode)
            for content, mode in zip((file.before, file.after), file.modes, strict=True)
        )
        for file in port.files
    }
    return {path: (before, after) for path, (before, after) in states.items() if before != after}


def _header(series: Series, patch_id: str, today: str) -> bytes:
    """Return the header of the original patch, with today's date and a field for its origin."""
    header = series.find(patch_id).header.decode("utf-8", "surrogateescape")
    description = from_text(header, patch_id)
    origin = f"{series.package} {series.version}"
    fields = {**description.fields, "Last-Update": today, "X-Vimectl-Ported-From": origin}
    return as_dep3(replace(description, fields=fields)).encode("utf-8", "surrogateescape")
