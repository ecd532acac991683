"""Make a series for a release of patches that came in another form."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import MissingRequirement, UsageError

from vimectl.patches import series as series_files
from vimectl.patches import series_text
from vimectl.patches.blobs import blob_id
from vimectl.patches.git_diff import Changes, differ
from vimectl.patches.interchange import importers
from vimectl.patches.interchange.importers import Incoming
from vimectl.patches.interchange.message import as_dep3
from vimectl.patches.lint.release_check import Release, check
from vimectl.patches.patchfile import tree
from vimectl.patches.patchfile.tree import File
from vimectl.patches.sources import Sources


@dataclass(frozen=True)
class Taken:
    """A patch of the new series: where it came from, its files before and after, and how many of its hunks
    lay elsewhere than they said."""

    id: str
    where: str
    changes: Changes
    offsets: int

    def as_json(self) -> dict[str, Any]:
        """The patch as `patch import --json` prints it."""
        files = [
            {"path": path, "before": _id(before), "after": _id(after)}
            for path, (before, after) in self.changes.items()
        ]
        return {"id": self.id, "from": self.where, "files": files, "offsets": self.offsets}


def take(
    path: Path, package: str, version: str, sources: Sources, out: Path, module: str | None = None
) -> list[Taken]:
    """Write the patches in ``path`` as a series for a release into a new folder.

    ``module`` is the folder by which the package is recognised: by default that of its other series, else
    its name. Each patch is applied to the release by git's rules, and git writes anew what it did: with full
    blob ids, at the lines where it really lies, a rename as a deletion and a creation.

    Raises:
        UsageError: there are no patches, one does not apply, ``out`` is there already, or the series cannot
            name a file.
        MissingRequirement: there is no git, or the folder cannot be written.
    """
    if out.exists():
        raise UsageError(f"{out} exists already", "name another --out, or remove it")
    found = importers.read(path)
    release = Release(sources)
    taken: list[Taken] = []
    with tempfile.TemporaryDirectory(prefix="vimectl-") as scratch, differ() as git:
        folder = Path(scratch, "series")
        folder.mkdir()
        for number, one in enumerate(found, 1):
            changes, offsets = _changes(one, release)
            release = release.patched(one.patch)
            patch_id = f"{number:04}-{one.slug}"
            header = as_dep3(one.message).encode() + b"---\n"
            (folder / f"{patch_id}.patch").write_bytes(header + git.diff(changes))
            taken.append(Taken(patch_id, one.where, changes, offsets))
        text = series_text.dump(
            f"Patches for the released {package} {version}, in the order in which they apply.",
            package,
            version,
            module or _module(package),
            [(one.id, one.changes) for one in taken],
        )
        (folder / "series.toml").write_text(text, encoding="utf-8")
        series_files.read(folder)
        try:
            shutil.copytree(folder, out)
        except OSError as e:
            raise MissingRequirement(f"{out} cannot be written: {e}") from e
    return taken


def _module(package: str) -> str:
    versions = series_files.known().get(package)
    return series_files.load(package, versions[0]).module if versions else package.replace("-", "_")


def _changes(one: Incoming, release: Release) -> tuple[Changes, int]:
    """What a patch does to each file, and how many hunks were found elsewhere. Raises UsageError."""
    try:
        made = tree.apply(one.patch.diffs, release.file)
    except UsageError as e:
        raise UsageError(
            f"{one.where}: does not apply to {release.name}: {e.message}",
            "vimectl patch lint FILE --against ... says how each hunk fits",
        ) from e
    changes = {path: (release.file(path), after) for path, after in sorted(made.items())}
    changes = {path: states for path, states in changes.items() if states[0] != states[1]}
    if not changes:
        raise UsageError(f"{one.where}: changes nothing in {release.name}", "leave it out")
    hunks, _ = check(one.patch, release)
    return changes, sum(hunk.result == "offset" for hunk in hunks)


def _id(file: File | None) -> str | None:
    return blob_id(file.content) if file else None
