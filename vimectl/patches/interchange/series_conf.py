"""Make a project file from a list of patches for work trees.

Each line of the list is ``work tree|patch in the image|patch in the source``. Empty lines and those that
start with ``#`` are ignored. The patches in the source are read; those in the image are older copies of them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import tomlkit
from vime_runtime.spec.errors import UsageError, unknown

from vimectl.patches.git_tree import CommitFiles
from vimectl.patches.interchange.importers import Imported, import_patches
from vimectl.patches.release_files import ReleaseFiles
from vimectl.stacks.catalog import PROJECT_FILE

# Opens the release that ``--against`` names.
OpenRelease = Callable[[str], ReleaseFiles]


@dataclass(frozen=True)
class WorkTree:
    """A work tree and its patches, in order. ``line`` is the first one that names it."""

    package: str
    path: Path
    line: int
    patches: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class ImportedProject:
    """A project file and, by package, what its series have."""

    file: Path
    series: dict[str, Imported]


def is_series_conf(path: Path) -> bool:
    """Return True for a list of patches for work trees."""
    return path.suffix == ".conf" and path.is_file()


def import_conf(
    conf: Path, out: Path, against: Mapping[str, str], open_release: OpenRelease
) -> ImportedProject:
    """Write a project file and a series for each work tree into a directory.

    The files in git's HEAD are the release that blob ids come from; ``against`` names releases by package,
    which is the work tree's name in lower case.

    Raises:
        UsageError: a line is malformed, a release is missing, a patch does not apply, or the files exist.
        MissingRequirement: git is not installed, or the files cannot be written.
    """
    trees = read_conf(conf)
    for name in against:
        if name not in trees:
            raise unknown("package", name, trees)
    created = [out / PROJECT_FILE, *(out / "patches" / name for name in trees)]
    for path in created:
        if path.exists():
            raise UsageError(f"{path} exists already", "name another --out, or remove it")
    releases = {name: _release(tree, against.get(name), open_release) for name, tree in trees.items()}
    missing = [f"{name} ({trees[name].path})" for name, release in releases.items() if release is None]
    if missing:
        raise UsageError(
            f"{conf}: there is no work tree for {', '.join(missing)}, so the unpatched files are unknown",
            "--against NAME=PATH names a work tree, folder, wheel or archive for each",
        )
    series = {
        name: import_patches(trees[name].patches, release) for name, release in releases.items() if release
    }
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".vimectl-", dir=out) as scratch:
        for name, imported in series.items():
            commit = getattr(releases[name], "commit", "")
            imported.write(Path(scratch, "patches", name), name, commit=commit)
        Path(scratch, PROJECT_FILE).write_text(_project(conf, trees), encoding="utf-8")
        for path in reversed(created):
            path.parent.mkdir(exist_ok=True)
            os.replace(scratch / path.relative_to(out), path)
    return ImportedProject(out / PROJECT_FILE, series)


def read_conf(conf: Path) -> dict[str, WorkTree]:
    """Return the work trees of a list by package. Raises UsageError for a malformed line or missing patch."""
    trees: dict[str, WorkTree] = {}
    try:
        lines = conf.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise UsageError(f"{conf}: cannot be read: {e}", "name a readable file in UTF-8") from e
    for number, line in enumerate(lines, 1):
        words = [word.strip() for word in line.split("|")]
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if len(words) != 3 or not all(words):
            raise UsageError(
                f"{conf}:{number}: not of the form work tree|patch in the image|patch in the source",
                "correct the line",
            )
        path = Path(os.path.normpath(conf.parent.absolute() / words[0]))
        name = path.name.lower().replace("_", "-")
        tree = trees.setdefault(name, WorkTree(name, path, number))
        if tree.path != path:
            raise UsageError(f"{conf}:{number}: {path} and {tree.path} are both {name}", "rename one of them")
        tree.patches.append(_source_patch(conf, words[2], number))
    if not trees:
        raise UsageError(f"{conf}: there are no patches here", "add lines, or name another file")
    return trees


def _source_patch(conf: Path, name: str, number: int) -> Path:
    """Return a patch in the source: relative to the list's folder or to one above it, like a repository."""
    for folder in conf.absolute().parents:
        if (folder / name).is_file():
            return folder / name
    raise UsageError(f"{conf}:{number}: {name}: no such file in the list's folder or above it", "correct it")


def _release(tree: WorkTree, named: str | None, open_release: OpenRelease) -> ReleaseFiles | None:
    path = tree.path if named is None else Path(named)
    if (path / ".git").exists():
        return CommitFiles(path)
    return open_release(named or str(path)) if named is not None or path.exists() else None


def _project(conf: Path, trees: Mapping[str, WorkTree]) -> str:
    """Return the text of the project file."""
    document = tomlkit.document()
    document.add(tomlkit.comment(f"The patches that {conf.name} lists."))
    document.add(tomlkit.comment('To use it for images and runs, name a stack first: extends = "..."'))
    document.add("patches", tomlkit.item({name: [f"patches/{name}"] for name in trees}))
    document.add("targets", tomlkit.item({name: str(tree.path) for name, tree in trees.items()}))
    return tomlkit.dumps(document)
