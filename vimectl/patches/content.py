"""What a file of a series contains, as released and after each patch, and where its released bytes are."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from vime_runtime.spec.errors import CheckFailed, UsageError

from vimectl.patches import applied_state, hunks, tree
from vimectl.patches.blobs import id_of
from vimectl.patches.series import Series
from vimectl.patches.target import Target

if TYPE_CHECKING:
    from vimectl.patches.patchfile import FileDiff


def released(target: Target, series: Series, path: str) -> bytes | None:
    """Return the content of ``path`` as released; None when the release does not have the file.

    It is computed from what is there when that is a content of the series, and is otherwise the copy that is
    ``kept``, with its errors.
    """
    if tree.obstacle(target.location, path) is None:
        position = series.position(path, tree.found(target.location, path))
        if position is not None:
            return _rewound(series, path, tree.content(target.location, path), position)
    return kept(target, path, series.chains[path][0])


def kept(target: Target, path: str, blob: str | None) -> bytes | None:
    """Return a copy of released content: the one that an apply put aside, or git's in a work tree.

    Raises CheckFailed when this machine has none.
    """
    if blob is None:
        return None
    copy = applied_state.original(target.location, blob)
    if copy is None and target.kind in ("git", "editable"):
        copy = _from_git(target.location, blob)
    if copy is None:
        raise CheckFailed(f"no copy of {path} as released ({blob}) is here", f"reinstall {target.package}")
    return copy


def stages(series: Series, path: str, content: bytes | None) -> list[bytes | None]:
    """Return the contents of a file from ``content``, as released, through every patch that touches it.

    Raises UsageError when a patch of the series does not lead to the blob id that the series states.
    """
    contents = [content]
    for patch, expected in zip(series.touching(path), series.chains[path][1:], strict=True):
        content = hunks.apply(content, _diff(series, patch.id, path))
        contents.append(_checked(series, path, content, expected))
    return contents


def _rewound(series: Series, path: str, content: bytes | None, position: int) -> bytes | None:
    """Take back the first ``position`` patches that touch a file."""
    for patch in reversed(series.touching(path)[:position]):
        content = hunks.apply(content, _diff(series, patch.id, path), reverse=True)
    return _checked(series, path, content, series.chains[path][0])


def _diff(series: Series, patch_id: str, path: str) -> FileDiff:
    found = diffs(series.directory / f"{patch_id}.patch")
    if path not in found:
        raise UsageError(f"{series.name}/{patch_id}.patch does not touch {path}", "the series is damaged")
    return found[path]


@lru_cache(maxsize=64)
def diffs(path: Path) -> dict[str, FileDiff]:
    """Return `hunks.read` of a patch file of a series, read once per process."""
    # A patch of a series touches several files, and each of them is asked for more than once.
    return hunks.read(path)


def _checked(series: Series, path: str, content: bytes | None, expected: str | None) -> bytes | None:
    if id_of(content) != expected:
        raise UsageError(f"{series.name}: {path} does not become {expected}", "the series is damaged")
    return content


def _from_git(location: Path, blob: str) -> bytes | None:
    try:
        from git import InvalidGitRepositoryError, Repo
    except ImportError:  # what GitPython raises where there is no git, and then there is no repository to ask
        return None
    try:
        with Repo(location, search_parent_directories=True) as repository:
            return bytes(repository.odb.stream(bytes.fromhex(blob)).read())
    except (InvalidGitRepositoryError, ValueError):  # ValueError: git has no such object
        return None
