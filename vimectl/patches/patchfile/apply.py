"""Apply a patch file with `git apply` to files that are only read; the changes are returned as values."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from vime_runtime.spec.errors import UsageError

from vimectl.patches.blobs import blob_id, content_at, git_mode
from vimectl.patches.git_commands import open_git, write_file
from vimectl.patches.patchfile.file_diff import PatchFile
from vimectl.patches.patchfile.names import parent_folders, path_problem, printable


@dataclass(frozen=True, slots=True)
class GitFile:
    """A file as git stores it. The content of a symbolic link is its target."""

    content: bytes
    mode: str = "100644"

    @property
    def blob(self) -> str:
        return blob_id(self.content)


FileLookup = Callable[[str], GitFile | None]


def apply_patch(
    patch: PatchFile, lookup: FileLookup, exclude: Iterable[str] = ()
) -> dict[str, GitFile | None]:
    """Return the new state of each path that a patch names (None: no such file).

    ``exclude`` has the paths that the text of the patch names and its ``diffs`` lack.

    Raises:
        UsageError: git refuses the patch; the message is git's.
        MissingRequirement: git is not installed.
    """
    paths = {path for diff in patch.diffs for path in (diff.old_path, diff.new_path) if path}
    for path in paths:
        if problem := path_problem(path):
            raise UsageError(printable(f"{path} {problem.what}"))
    with tempfile.TemporaryDirectory(prefix="vimectl-") as scratch:
        tree = Path(scratch, "tree")
        tree.mkdir()
        # git refuses to write behind a file or a symbolic link, so those in the place of a folder count.
        found = {path: lookup(path) for path in paths.union(*map(parent_folders, paths))}
        for path, file in found.items():
            if file is not None and not any(found[folder] for folder in parent_folders(path)):
                write_file(tree / path, file)
        Path(scratch, "patch").write_bytes(patch.text)
        git = open_git(tree)
        git.update_environment(GIT_CEILING_DIRECTORIES=scratch)
        strip = [] if patch.strip is None else [f"-p{patch.strip}"]
        status, _, error = git.execute(
            ["git", "apply", "--whitespace=nowarn", *strip, *map(_exclude, exclude), "../patch"],
            with_extended_output=True,
            with_exceptions=False,
        )
        if status:
            raise UsageError(printable(error.replace("error: ", "").replace("\n", "; ")))
        return {path: _read(tree / path) for path in paths}


def _exclude(path: str) -> str:
    return "--exclude=" + re.sub(r"[][*?\\]", r"\\\g<0>", path)


def _read(path: Path) -> GitFile | None:
    if path.is_dir() and not path.is_symlink():
        return None
    content = content_at(path)
    return None if content is None else GitFile(content, git_mode(path.lstat().st_mode))
