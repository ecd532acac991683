"""Run the port command: open both releases, port the series, and write the new series or its conflicts."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from vime_runtime.spec.errors import UsageError

from vimectl.patches import content, release_finder, target
from vimectl.patches import series as series_files
from vimectl.patches.git_tree import CommitFiles
from vimectl.patches.interchange.description import as_dep3, from_text
from vimectl.patches.port.conflict_folder import README, Resolutions, write_conflicts
from vimectl.patches.port.port_file import PatchPort
from vimectl.patches.port.rebase import misfit, rebase
from vimectl.patches.release_files import PatchedRelease, ReleaseFiles, open_path
from vimectl.patches.restack import file_states
from vimectl.patches.series import Series
from vimectl.patches.series_writer import NewPatch, write_series
from vimectl.releases.index import parse_file_name
from vimectl.stacks.versions import matches
from vimectl.util.directory_lock import explain_disk_errors
from vimectl.util.new_folder import check_new_folder

_VERSION = re.compile(r"\d+(\.\w+)+([-+]\S+)?")


@dataclass(frozen=True)
class PortOutcome:
    """``old`` and ``new`` are versions or commits. ``written`` is the new series, or None with conflicts.
    ``conflicts`` is their folder, and ``command`` the command that continues after they are resolved."""

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
) -> PortOutcome:
    """Port the series of a package for ``old`` to ``new``, or to the newest release.

    A series that starts where vimectl's own for ``old`` ends is ported onto vimectl's own for ``new``.

    Args:
        old, new: versions, or commits of a work tree. ``old`` may be empty if the series states it.
        sources: the old and the new release, as folder, work tree, wheel or source archive. A single one is
            whichever release it contains, or both. Missing ones come from pip's sources.
        out: the folder of the new series, by default ``<package>-<new>`` in the working directory;
            conflicts are written to a folder with the suffix ``.conflicts``.
        resolved: the conflict folder of an earlier call, with the user's edits.
        directory: the folder of the series, if vimectl does not ship it.

    Raises:
        UsageError: no such series or release, or an output folder exists.
        CheckFailed: the old release is not the one that the series is for.
        MissingRequirement: a release cannot be fetched, or git is not installed.
    """
    if not old and not directory:
        raise UsageError(f"there are several series for {package}", "name the release of one with --from V")
    series = series_files.find(package, old, directory)
    series, old = series._replace(package=series.package or package), _stated(series, old)
    if new == "newest":
        new = release_finder.versions(package)[-1]
    out = out or Path(f"{package}-{new.replace('/', '-')}")
    if out.name in ("", ".."):  # a name is needed for the conflict folder
        out = Path(os.path.abspath(out))
    conflicts = resolved or out.with_name(f"{out.name}.conflicts")
    _check_folders(out, conflicts, resolved)
    releases = _on_own_series(series, (old, new), _open_releases(series, old, new, sources))
    labels = f"{series.package} {old}", f"{series.package} {new}"
    patches = rebase(series, labels, releases, Resolutions(conflicts))
    if all(patch.result != "conflict" for patch in patches):
        _write(out, series, labels, patches, releases[1].files)
        return PortOutcome(package, old, new, patches, written=out)
    words = ["vimectl", "patch", "port", package, "--from", old, "--to", new]
    words += [word for path in sources for word in ("--source", str(path))]
    words += ["--series", str(directory)] if directory else []
    command = shlex.join([*words, "--out", str(out), "--resolved", str(conflicts)])
    with explain_disk_errors(conflicts, "name another place with --out DIR"):
        write_conflicts(conflicts, patches, f"{labels[0]} to {new}", command)
    return PortOutcome(package, old, new, patches, conflicts=conflicts, command=command)


def slug(patch_id: str) -> str:
    """Return the name of a patch without its number, which may differ between releases."""
    return re.sub(r"^\d+-", "", patch_id)


def _stated(series: Series, old: str) -> str:
    """Return what a series is for. Raises UsageError when nothing states it, or it is not ``old``."""
    stated = series.version or series.commit
    if not stated and not old:
        raise UsageError(f"{series.name} does not state its release", "state it with --from")
    if stated and old and not matches(stated, old) and not (series.commit and stated.startswith(old)):
        raise UsageError(f"{series.name} is for {stated}, not {old}", "leave --from out")
    return stated or old


def _check_folders(out: Path, conflicts: Path, resolved: Path | None) -> None:
    for path, hint in (
        (out, "name another directory with --out DIR, or remove this one first"),
        (conflicts, f"continue with --resolved {shlex.quote(str(conflicts))}, or remove it to start over"),
    ):
        if path != resolved:
            check_new_folder(path, hint)
    if resolved and not (resolved / README).is_file():
        hint = "without --resolved the conflicts are written again"
        raise UsageError(f"{resolved}: not a folder that vimectl patch port made for conflicts", hint)


def _open_releases(
    series: Series, old: str, new: str, given: Sequence[Path]
) -> tuple[PatchedRelease, PatchedRelease]:
    if len(given) > 2:
        raise UsageError(f"{len(given)} times --source", "at most two: the old release, then the new one")
    paths: list[Path | None] = [*given, None, None][:2]
    if len(given) == 1:
        commits = [_commit(given[0], revision) for revision in (old, new)]
        if any(commits):
            paths = [given[0] if commit else None for commit in commits]
        elif misfit(series, PatchedRelease(open_path(given[0]))):
            paths.reverse()
    before, after = (
        _open(path, series, version) if path else content.release(series.package, version)
        for path, version in zip(paths, (old, new), strict=True)
    )
    return PatchedRelease(before), PatchedRelease(after)


def _open(path: Path, series: Series, version: str) -> ReleaseFiles:
    """Open a release that the user named. Raises UsageError when it states another version."""
    if commit := _commit(path, version):
        return commit
    found = target.find_at(path, series.package, series.module) if path.is_dir() else None
    file = parse_file_name(path.name, "")
    stated = found.version if found else file.version if file else ""
    if _VERSION.fullmatch(stated) and not matches(stated, version):
        raise UsageError(f"{path}: is {series.package} {stated}, not {version}", "name the right release")
    return open_path(path)


def _commit(path: Path, revision: str) -> CommitFiles | None:
    """Return a commit of a work tree, or None when it has none of this name."""
    try:
        return CommitFiles(path, revision) if (path / ".git").exists() else None
    except UsageError:
        return None


def _on_own_series(
    series: Series, names: tuple[str, str], releases: tuple[PatchedRelease, PatchedRelease]
) -> tuple[PatchedRelease, PatchedRelease]:
    """Return the releases; with vimectl's own series applied, if ``series`` is stacked on it.

    Raises UsageError when vimectl has no series for the new release.
    """
    if not misfit(series, releases[0]) or names[0] not in series_files.known().get(series.package, ()):
        return releases
    own = series_files.load(series.package, names[0])
    if misfit(own, releases[0]) or misfit(series, stacked := _patched(own, releases[0])):
        return releases
    return stacked, _patched(series_files.load(series.package, names[1]), releases[1])


def _patched(series: Series, release: PatchedRelease) -> PatchedRelease:
    """Return a release with a whole series applied."""
    return release.with_changes(
        {path: file_states(series, path, release.file(path))[-1] for path in series.chains}
    )


def _write(
    out: Path, series: Series, labels: tuple[str, str], ports: Sequence[PatchPort], files: ReleaseFiles
) -> None:
    """Write the new series. The headers are the original ones with two fields added or replaced."""
    unneeded = {**series.unneeded} | {slug(port.id): port.left_out for port in ports if port.left_out}
    today = datetime.now(timezone.utc).date().isoformat()
    patches = []
    for port in (port for port in ports if not port.left_out):
        unneeded.pop(slug(port.id), None)  # two patches may have the same slug
        header = series.find(port.id).header.decode("utf-8", "surrogateescape")
        description = from_text(header, port.id)
        fields = description.fields | {"Last-Update": today, "X-Vimectl-Ported-From": labels[0]}
        text = as_dep3(replace(description, fields=fields)).encode("utf-8", "surrogateescape")
        changes = {file.path: (file.before, file.after) for file in port.files if file.before != file.after}
        patches.append(NewPatch(port.id, text, changes))
    version = labels[1].partition(" ")[2]
    commit = files.commit if isinstance(files, CommitFiles) and not _VERSION.fullmatch(version) else ""
    comment = (
        f"Patches for {labels[1]}, in the order in which they apply;\nported from those for {labels[0]}."
    )
    version = "" if commit else version
    write_series(out, comment, series.package, version, series.module, patches, unneeded, commit)
