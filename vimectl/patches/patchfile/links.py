"""Follow the symbolic links that the patches of a series make, and report those that lead out of the target.

A target of a link that stays inside when read alone may lead out through another link: of an earlier patch,
or of the release.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from vimectl.patches.blobs import LINK
from vimectl.patches.patchfile.file_diff import Defect, FileDiff
from vimectl.patches.patchfile.names import CONTROL, parent_folders, path_problem

# More than the patches of any package make. Every patch with a link is checked against all of them.
MOST_LINKS = 256
# As many folders as a path of the length that the system allows can have, and links as many as it follows.
_MOST_STEPS = 2048
_MOST_FOLLOWED = 40
# Returns the target of a symbolic link that the target or release has, or None.
LinkLookup = Callable[[str], "bytes | None"]


class SeriesLinks:
    """The links of a series as far as its patches were checked. ``lookup`` has those of the release."""

    def __init__(self, lookup: LinkLookup = lambda path: None) -> None:
        self._lookup = lookup
        # By the key of a path: the target of a link, None where the series removed one.
        self._targets: dict[str, str | None] = {}
        # By key: the path of every link that the series ever made, and the folders of all paths.
        self._made: dict[str, str] = {}
        self._folders: dict[str, str] = {}
        self._paths: list[str] = []
        self._reported: set[str] = set()

    def check(self, diffs: Iterable[FileDiff]) -> Iterator[Defect]:
        """Check the next patch of the series: a link leads out, or a path has a link as a folder."""
        diffs = list(diffs)
        made = {diff.new_path: diff for diff in diffs if diff.new_path and self._is_link(diff)}
        if not made and not self._made:
            self._paths += (path for diff in diffs for path in (diff.old_path, diff.new_path) if path)
            return
        targets = {path: self._target(diff) for path, diff in made.items()}
        for diff in diffs:
            if diff.old_path and diff.action in ("delete", "rename"):
                self._targets[_key(diff.old_path)] = None
        for path, (target, problem) in targets.items():
            self._targets[_key(path)] = target
            self._made.setdefault(_key(path), path)
            if problem:
                self._reported.add(_key(path))
                yield Defect(made[path].line, "symlink-outside", f"{path} {problem}")
        yield from self._check_folders(diffs, made)
        if len(self._made) > MOST_LINKS:
            message = f"the patches of a series make more than {MOST_LINKS} links"
            yield Defect(diffs[0].line, "symlink-outside", message)
        elif made:
            yield from self._check_targets(made)

    def _is_link(self, diff: FileDiff) -> bool:
        """Return True if a diff leaves a link. One without a mode leaves what was there."""
        mode = diff.new_mode or diff.old_mode
        kept = mode is None and diff.old_path is not None and self._link(diff.old_path) is not None
        return mode == LINK or kept

    def _target(self, diff: FileDiff) -> tuple[str, str]:
        """Return the target of the link that a diff leaves, and why it cannot be one, or ""."""
        if diff.binary:
            return "", "would be a link whose target is binary data"
        content = b"".join(line for hunk in diff.hunks for line in hunk.new_lines())
        target = content.decode("utf-8", "surrogateescape")
        if not diff.hunks and diff.old_path:
            target = self._link(diff.old_path) or ""
        # What comes after a line feed, or before a hunk that is further down, is not in the diff.
        if CONTROL.search(target) or any(hunk.new_start > 1 for hunk in diff.hunks):
            return target, f"would be a link to {target!r}, with control characters"
        return target, ""

    def _check_folders(self, diffs: list[FileDiff], made: Mapping[str, FileDiff]) -> Iterator[Defect]:
        """Report paths of which a folder is, or at some point of the series was, a link that it made."""
        for path in self._paths:
            self._folders |= {_key(folder): folder for folder in parent_folders(path)}
        self._paths = []
        for path, diff in made.items():
            if folder := self._folders.get(_key(path)):
                message = f"{path} would be a link, and patches before have files in the folder {folder}"
                yield Defect(diff.line, "symlink-through", message)
        for diff in diffs:
            for path in dict.fromkeys(path for path in (diff.old_path, diff.new_path) if path):
                folders = {_key(folder): folder for folder in parent_folders(path)}
                self._folders |= folders
                if links := folders.keys() & self._made.keys():
                    message = f"{path} is behind {self._made[min(links)]}, a link that the patches make"
                    yield Defect(diff.line, "symlink-through", message)

    def _check_targets(self, made: Mapping[str, FileDiff]) -> Iterator[Defect]:
        """Report links that lead out: those of this patch, and those that its links lead elsewhere."""
        first = next(iter(made.values()))
        for key, target in self._targets.items():
            if target is None or key in self._reported:
                continue
            if problem := self._outside(self._made[key]):
                self._reported.add(key)
                diff = made.get(self._made[key], first)
                line = diff.hunks[0].line if diff.hunks else diff.line
                message = f"{self._made[key]} would be a link to {target!r}, which {problem}"
                yield Defect(line, "symlink-outside", message)

    def _outside(self, path: str) -> str:
        """Return how the path of a link leads out of the target; "" if it does not."""
        todo = [*reversed(path.split("/"))]
        folders: list[str] = []
        followed = steps = 0
        while todo:
            steps += 1
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if not folders:
                    return "leads out of the target"
                folders.pop()
                continue
            folders.append(part)
            target = self._link("/".join(folders))
            if target is None:
                continue
            followed += 1
            if followed > _MOST_FOLLOWED or steps + target.count("/") > _MOST_STEPS:
                return "goes through too many links or folders"
            if target.startswith("/"):
                return "is an absolute path"
            folders.pop()
            todo += reversed(target.split("/"))
        problem = path_problem("/".join(folders) or ".")
        return problem.what if problem else ""

    def _link(self, path: str) -> str | None:
        if _key(path) in self._targets:
            return self._targets[_key(path)]
        found = self._lookup(path)
        return None if found is None else found.decode("utf-8", "surrogateescape")


def _key(path: str) -> str:
    """Return what is the same for all names that a file system may take for one."""
    if path.isascii():
        return path.lower()
    import unicodedata  # few paths need it

    return unicodedata.normalize("NFC", path).casefold()
