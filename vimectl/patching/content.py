"""What a file of a series contains, as released and after each patch, and where its released bytes are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vimectl.errors import BadInput, CheckFailed
from vimectl.patching import hunks, ledger
from vimectl.patching.blobs import blob_id, content_at
from vimectl.patching.series import Series
from vimectl.patching.target import Target

if TYPE_CHECKING:
    from vimectl.patching.patchfile import FileDiff


def released(target: Target, series: Series, path: str) -> bytes | None:
    """Return the content of ``path`` as released; None when the release does not have the file.

    It is computed from what is there when that is a content of the series, and is otherwise the copy that is
    ``kept``, with its errors.
    """
    chain = series.chains[path]
    current = content_at(target.location / path)
    blob = None if current is None else blob_id(current)
    if blob in chain:
        return _rewound(series, path, current, chain.index(blob))
    return kept(target, path, chain[0])


def kept(target: Target, path: str, blob: str | None) -> bytes | None:
    """Return a copy of released content: the one that an apply put aside, or git's in a work tree.

    Raises CheckFailed when this machine has none.
    """
    if blob is None:
        return None
    copy = ledger.original(target.location, blob)
    if copy is None and target.kind in ("git", "editable"):
        copy = _from_git(target.location, blob)
    if copy is None:
        raise CheckFailed(f"no copy of {path} as released ({blob}) is here", f"reinstall {target.package}")
    return copy


def stages(series: Series, path: str, content: bytes | None) -> list[bytes | None]:
    """Return the contents of a file from ``content``, as released, through every patch that touches it.

    Raises BadInput when a patch of the series does not lead to the blob id that the series states.
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
    diffs = hunks.read(series.directory / f"{patch_id}.patch")
    if path not in diffs:
        raise BadInput(f"{series.name}/{patch_id}.patch does not touch {path}", "the series is damaged")
    return diffs[path]


def _checked(series: Series, path: str, content: bytes | None, expected: str | None) -> bytes | None:
    if (None if content is None else blob_id(content)) != expected:
        raise BadInput(f"{series.name}: {path} does not become {expected}", "the series is damaged")
    return content


def _from_git(location: Path, blob: str) -> bytes | None:
    from git import InvalidGitRepositoryError, Repo

    try:
        with Repo(location, search_parent_directories=True) as repository:
            return bytes(repository.odb.stream(bytes.fromhex(blob)).read())
    except (InvalidGitRepositoryError, ValueError):  # ValueError: git has no such object
        return None
