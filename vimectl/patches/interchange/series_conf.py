"""Make a project file from a list of patches for work trees.

Each line of the list is ``work tree|patch in the image|patch in the source``; empty lines and those that
start with ``#`` are ignored. The patches in the source are read; those in the image are older copies of them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import tomlkit
from vime_runtime.spec.errors import UsageError, unknown
from vime_runtime.spec.regular_files import read_regular

from vimectl.patches.git_tree import CommitFiles
from vimectl.patches.interchange.importers import Imported, import_patches
from vimectl.patches.patchfile.reader import LARGEST
from vimectl.patches.release_files import ReleaseFiles
from vimectl.stacks.catalog import PROJECT_FILE
from vimectl.util.directory_lock import explain_disk_errors
from vimectl.util.directory_tree import DirectoryTree


class WorkTree(NamedTuple):
    """A work tree and its patches, in order."""

    path: Path
    patches: list[Path]


def import_conf(
    conf: Path, out: Path, against: Mapping[str, str], open_release: Callable[[str], ReleaseFiles]
) -> dict[str, Imported]:
    """Write a project file and a series for each work tree into a directory; return the series by package.

    The files in git's HEAD are the release that blob ids are from; ``against`` names releases by package,
    which is the work tree's name in lower case.

    Raises:
        UsageError: a line is malformed, a release is missing, a patch does not apply, or a file exists.
        MissingRequirement: git is not installed, or a series cannot be written.
    """
    trees = _read_conf(conf)
    for name in against:
        if name not in trees:
            raise unknown("package", name, trees)
    created = [*(out / "patches" / name for name in trees), out / PROJECT_FILE]
    for path in created:
        if os.path.lexists(path):
            raise UsageError(f"{path} exists already", "name another --out, or remove it")
    sources = {name: Path(against.get(name, tree.path)) for name, tree in trees.items()}
    missing = [
        f"{name} ({path})" for name, path in sources.items() if name not in against and not path.exists()
    ]
    if missing:
        raise UsageError(
            f"{conf}: there is no work tree for {', '.join(missing)}, so the unpatched files are unknown",
            "--against NAME=PATH names a work tree, folder, wheel or archive for each",
        )
    releases = {
        name: CommitFiles(path) if (path / ".git").exists() else open_release(against.get(name, str(path)))
        for name, path in sources.items()
    }
    series = {name: import_patches(tree.patches, releases[name]) for name, tree in trees.items()}
    with explain_disk_errors(out, "name another --out DIR"):
        out.mkdir(parents=True, exist_ok=True)
        with DirectoryTree(out) as tree, tempfile.TemporaryDirectory(prefix=".vimectl-", dir=out) as scratch:
            for name, imported in series.items():
                folder = Path(scratch, "patches", name)
                imported.write(folder, name, commit=getattr(releases[name], "commit", ""))
            document = tomlkit.document()
            document.add(tomlkit.comment(f"The patches that {conf.name} lists."))
            document.add(
                tomlkit.comment('To use it for images and runs, name a stack first: extends = "..."')
            )
            document.add("patches", tomlkit.item({name: [f"patches/{name}"] for name in trees}))
            document.add("targets", tomlkit.item({name: str(one.path) for name, one in trees.items()}))
            Path(scratch, PROJECT_FILE).write_text(tomlkit.dumps(document), encoding="utf-8")
            _move(tree, Path(scratch).name, [path.relative_to(out).as_posix() for path in created])
    return series


def _move(tree: DirectoryTree, scratch: str, paths: Sequence[str]) -> None:
    """Move files and folders to the same paths in the tree, all or none. No folder may be a link."""
    if tree.lstat("patches") is None:
        tree.make_folder("patches")
    moved: list[str] = []
    try:
        for path in paths:
            tree.rename(f"{scratch}/{path}", path)
            moved.append(path)
    except BaseException:
        for path in moved:
            tree.rename(path, f"{scratch}/{path}")
        raise


def _read_conf(conf: Path) -> dict[str, WorkTree]:
    """Return the work trees of a list by package. Raises UsageError for a malformed line or missing patch."""
    try:
        lines = read_regular(conf, LARGEST).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else e
        raise UsageError(f"{conf}: cannot be read: {reason}", "name a readable file in UTF-8") from e
    trees: dict[str, WorkTree] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where, words = f"{conf}:{number}", [word.strip() for word in line.split("|")]
        if len(words) != 3 or not all(words):
            form = "work tree|patch in the image|patch in the source"
            raise UsageError(f"{where}: not of the form {form}", "correct the line")
        path = Path(os.path.normpath(conf.parent.absolute() / words[0]))
        name = path.name.lower().replace("_", "-")
        tree = trees.setdefault(name, WorkTree(path, []))
        if tree.path != path:
            raise UsageError(f"{where}: {path} and {tree.path} are both {name}", "rename one of them")
        # Like a path in a repository, whose list is in a folder of it.
        places = [folder / words[2] for folder in conf.absolute().parents]
        found = [place for place in places if os.path.isfile(place)]
        if not found:
            message = f"{where}: {words[2]}: no such file in the list's folder or above it"
            raise UsageError(message, "correct it")
        tree.patches.append(found[0])
    if not trees:
        raise UsageError(f"{conf}: there are no patches here", "add lines, or name another file")
    return trees
