"""Compare what vimectl reads in patches, and where their hunks fit, with what `git apply` does."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from unittest import mock

from vime_runtime.spec.errors import UsageError

from harness.patches.random_patches import Tree, pair, write_file
from vimectl.patches.lint.release_check import PatchedLines, check_release
from vimectl.patches.patchfile.apply import GitFile, apply_patch
from vimectl.patches.patchfile.reader import parse
from vimectl.patches.release_files import PatchedRelease

# No user settings, and no repository above the trees.
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CEILING_DIRECTORIES": tempfile.gettempdir(),
    "LC_ALL": "C",
}


def by_git(patch: bytes, met: Tree, directory: Path) -> Tree | None:
    """Return the tree after `git apply`, or None if git refuses."""
    for path, file in met.items():
        write_file(directory / path, file)
    done = subprocess.run(
        ["git", "apply", "--whitespace=nowarn", "-"],
        input=patch,
        cwd=directory,
        env=ENVIRONMENT,
        capture_output=True,
    )
    return stored(directory) if done.returncode == 0 else None


def stored(directory: Path) -> Tree:
    """Return the files of a directory as git stores them."""
    found = {}
    for file in directory.rglob("*"):
        path = str(file.relative_to(directory))
        if file.is_symlink():
            found[path] = GitFile(os.fsencode(os.readlink(file)), "120000")
        elif file.is_file():
            found[path] = GitFile(file.read_bytes(), "100755" if file.stat().st_mode & 0o100 else "100644")
    return found


class Release:
    """The files of a tree as those of a release."""

    name = "tree"

    def __init__(self, met: Tree) -> None:
        self._met = met

    def read(self, path: str) -> bytes | None:
        return self._met[path].content if path in self._met else None

    def mode(self, path: str) -> int:
        return int(self._met[path].mode, 8)

    def paths(self) -> list[str]:
        return sorted(self._met)


def by_us(patch: bytes, met: Tree) -> Tree | str:
    """Return the tree after vimectl applied the patch to the files that it reads in it, or why it refuses."""
    read = parse(patch)
    fatal = [defect for defect in read.defects if defect.fatal]
    if fatal:
        return f"{fatal[0].rule}: {fatal[0].message}"
    try:
        changed = apply_patch(read, met.get)
    except UsageError as e:
        return e.message
    return {path: file for path, file in {**met, **changed}.items() if file is not None}


def misfit(patch: bytes, met: Tree, after: Tree) -> str:
    """Return how lint contradicts git about a patch that git applies; "" if it does not."""
    found = check_release(parse(patch), PatchedRelease(Release(met)))
    for fit in found.fits:
        if fit.result not in ("exact", "offset", "applied"):
            return f"line {fit.line}: {fit.result}"
    if any(fit.result == "applied" for fit in found.fits):
        return ""
    for path, file in found.changed.items():
        if (file and file.content) != (after[path].content if path in after else None):
            return f"{path} differs"
    return ""


def fits_as_git_has_it(image: PatchedLines, sought: list[bytes], at: int) -> bool:
    """Git's rule, which ours does not share: lines are alike but for blanks, and the text of all is the same,
    where a line without a newline is the beginning of one that has it."""
    there = image.lines[at : at + len(sought)]
    if len(there) < len(sought) or any(image.patched[at : at + len(sought)]):
        return False
    alike = all(one.split() == other.split() for one, other in zip(there, sought, strict=True))
    return alike and b"".join(there).startswith(b"".join(sought))


def compare(seed: int) -> tuple[str, str]:
    """Return ("agree", how) or ("disagree", what) for one pair."""
    patch, met = pair(seed)
    directory = Path(tempfile.mkdtemp(prefix="pairs-"))
    try:
        theirs = by_git(patch, met, directory)
    finally:
        shutil.rmtree(directory)
    ours = by_us(patch, met)
    if isinstance(ours, str):
        return ("agree", "refused") if theirs is None else ("disagree", f"seed {seed}: ours says {ours}")
    if theirs is None:
        return "disagree", f"seed {seed}: git refuses, ours accepts"
    if ours != theirs:
        differ = [path for path in {**ours, **theirs} if ours.get(path) != theirs.get(path)]
        return "disagree", f"seed {seed}: {differ} differ"
    wrong = misfit(patch, met, theirs)
    with mock.patch.object(PatchedLines, "fits", fits_as_git_has_it):
        joined = wrong and not misfit(patch, met, theirs)
    if wrong and not joined:
        return "disagree", f"seed {seed}: git applies it, lint says {wrong}"
    return "agree", "applied" if ours != met else "applied, changing nothing"
