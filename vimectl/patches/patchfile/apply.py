"""Apply a patch file with `git apply` to files that are values; so are the changed files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from vime_runtime.spec.errors import UsageError

from vimectl.patches.blobs import blob_id
from vimectl.patches.git_commands import temporary_repository
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
    # git refuses to write behind a file or a symbolic link, so those in the place of a folder count.
    found = {path: lookup(path) for path in paths.union(*map(parent_folders, paths))}
    there = {
        path: file
        for path, file in found.items()
        if file is not None and not any(found[folder] for folder in parent_folders(path))
    }
    strip = [] if patch.strip is None else [f"-p{patch.strip}"]
    with temporary_repository() as repository:
        repository.fill(there)
        try:
            repository.apply(patch.text, *strip, *map(_exclude, exclude))
        except UsageError as e:
            raise UsageError(printable(e.message)) from None
        files = repository.files()
    return {path: GitFile(files[path][1], files[path][0]) if path in files else None for path in paths}


def _exclude(path: str) -> str:
    return "--exclude=" + re.sub(r"[][*?\\]", r"\\\g<0>", path)
