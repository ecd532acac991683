"""What `vimectl patch port` does: find both releases, carry the series over, write it or its conflicts."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vime_runtime.spec.errors import MissingRequirement, UsageError

from vimectl.patches import catalog, releases, target
from vimectl.patches.blobs import blob_id
from vimectl.patches.port import scratch
from vimectl.patches.port.rebase import PatchPort, carry
from vimectl.patches.port.scratch import Resolved
from vimectl.patches.port.write import write
from vimectl.patches.releases.index import described
from vimectl.patches.series import Series
from vimectl.patches.sources import Sources, open_path
from vimectl.stacks.versions import matches

NEWEST = "newest"
Report = Callable[[str, int, "int | None"], None]


@dataclass(frozen=True)
class Outcome:
    """``written`` is the new series, or None when there are conflicts; those are in ``conflicts``."""

    package: str
    old: str
    new: str
    patches: list[PatchPort]
    written: Path | None = None
    conflicts: Path | None = None
    again: str = ""


def port(
    package: str,
    old: str,
    new: str,
    sources: Sequence[Path] = (),
    out: Path | None = None,
    resolved: Path | None = None,
    directory: Path | None = None,
    report: Report = lambda name, done, total: None,
) -> Outcome:
    """Carry the series of a package for version ``old`` over to version ``new``, or to the newest there is.

    Args:
        sources: the old and the new release, as folder, wheel or source archive; one alone is taken for the
            one that it is; what is not given is found where pip would find it.
        out: where the new series goes, ``<package>-<new>`` here if not given; conflicts go beside it.
        resolved: the folder of conflicts of an earlier call, edited.
        directory: where the series lies, when it is none of ours.
        report: told how far the fetching of a whole file is.

    Raises:
        UsageError: no such series or release, or something in the way.
        CheckFailed: the old release is not the one that the series is for.
        MissingRequirement: a release cannot be fetched, or there is no git.
    """
    one = catalog.find(package, old, directory)
    if new == NEWEST:
        new = releases.versions(package)[-1]
    out = _named(out or Path(f"{package}-{new}"))
    conflicts = resolved or out.with_name(f"{out.name}.conflicts")
    for path in (out, *(() if resolved else (conflicts,))):
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise UsageError(f"{path}: is there already", _in_the_way(path, conflicts))
    decided = Resolved(resolved)
    before, after = _releases(one, new, sources, report)
    patches = carry(one, new, before, after, decided)
    words = ["vimectl", "patch", "port", package, "--from", old, "--to", new]
    words += [word for path in sources for word in ("--source", str(path))]
    words += ["--series", str(directory)] if directory else []
    words += ["--out", str(out), "--resolved", str(conflicts)]
    again = shlex.join(words)
    try:
        if any(patch.result == "conflict" for patch in patches):
            scratch.write(conflicts, patches, f"{package} {old} to {new}", again)
            return Outcome(package, old, new, patches, conflicts=conflicts, again=again)
        _write(out, one, new, patches)
    except OSError as e:
        raise MissingRequirement(
            f"{out} cannot be written: {e.strerror}", "name another place with --out DIR"
        ) from e
    return Outcome(package, old, new, patches, written=out)


def _named(out: Path) -> Path:
    """Return a path by whose name others beside it can be called."""
    return out if out.name not in ("", "..") else Path(os.path.abspath(out))


def _in_the_way(path: Path, conflicts: Path) -> str:
    if path == conflicts:
        return f"go on with --resolved {shlex.quote(str(path))}, or remove it to begin anew"
    return "name another directory with --out DIR, or remove this one first"


def _releases(one: Series, new: str, given: Sequence[Path], report: Report) -> tuple[Sources, Sources]:
    if len(given) > 2:
        raise UsageError(f"{len(given)} times --source", "at most two: the old release, then the new one")
    old: Sources | None = None
    after: Sources | None = None
    if len(given) == 2:
        old, after = _given(given[0], one, one.version), _given(given[1], one, new)
    elif given:
        if _is_released(open_path(given[0]), one):
            old = _given(given[0], one, one.version)
        else:
            after = _given(given[0], one, new)
    return (
        old or releases.find(one.package, one.version, report),
        after or releases.find(one.package, new, report),
    )


def _given(path: Path, one: Series, version: str) -> Sources:
    """Open a release that was named. Raises UsageError when it says that it is another version."""
    stated = _stated_version(path, one)
    if stated and not matches(stated, version):
        raise UsageError(f"{path}: is {one.package} {stated}, not {version}")
    return open_path(path)


def _stated_version(path: Path, one: Series) -> str | None:
    if not path.is_dir():
        file = described(path.name, "")
        return file.version if file else None
    try:
        found = target.at(path, one.package, one.module)
    except UsageError:  # it states none
        return None
    return found.version if found else None


def _is_released(sources: Sources, one: Series) -> bool:
    contents = {path: sources.read(path) for path in one.chains}
    return all(
        (None if content is None else blob_id(content)) == one.chains[path][0]
        for path, content in contents.items()
    )


def _write(out: Path, one: Series, version: str, patches: Sequence[PatchPort]) -> None:
    """Write the series beside its place, and put it there when it is whole."""
    fresh = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        fresh.mkdir(parents=True)
        write(fresh, one, version, patches)
        fresh.rename(out)  # an empty directory may be there
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
