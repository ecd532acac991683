"""Carry somebody's edits of a file from one state of a series to another: a three-way merge, by git."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from vime_runtime.spec.errors import CheckFailed, MissingRequirement

from vimectl.patches import applied_state, content, tree
from vimectl.patches.blobs import id_of
from vimectl.patches.difference import nearest
from vimectl.patches.state import TargetStatus


@dataclass(frozen=True)
class Merged:
    """An edited file: the edits on the release (``unpatched``), and on the file with every patch applied."""

    unpatched: bytes | None
    patched: bytes | None


def edited(status: TargetStatus, path: str) -> Merged:
    """Return what the edits of a drifted file come to without and with the patches.

    The base is the state of the series that the file is nearest to, or, for what an earlier merge left, the
    release. A revert after an apply gives back the file that was there before, byte for byte: the ledger
    keeps it.

    Raises:
        CheckFailed: the edits and the patches change the same lines, shown with both sides; or no copy of
            the release is here to merge from; or the file cannot be written. Nothing was changed.
        MissingRequirement: there is no git.
    """
    assert status.series is not None
    if path in status.obstacles:
        raise CheckFailed(f"{path} cannot be merged: {status.obstacles[path]}", "put a file in its place")
    current = tree.content(status.target.location, path)
    released = content.released(status.target, status.series, path)
    known = content.stages(status.series, path, released)
    base = nearest(known, current)
    recorded = status.entry.file(path) if status.entry else None
    if recorded and recorded.merged and recorded.after == id_of(current):
        current, base = applied_state.original(status.target.location, recorded.before or ""), released
    return Merged(*(_three_way(path, base, current, wanted) for wanted in (known[0], known[-1])))


def _three_way(path: str, base: bytes | None, mine: bytes | None, theirs: bytes | None) -> bytes | None:
    if base == theirs or mine == theirs:
        return mine
    if base == mine:
        return theirs
    if base is None or mine is None or theirs is None:
        raise CheckFailed(
            f"{path} cannot be merged: one side has the file and the other has not", "put the file back first"
        )
    try:
        from git import Git
    except ImportError as e:
        raise MissingRequirement("there is no git to merge with", "install git") from e
    with tempfile.TemporaryDirectory(prefix="vimectl-") as scratch:
        for name, data in (("mine", mine), ("base", base), ("theirs", theirs)):
            Path(scratch, name).write_bytes(data)
        labels = ["-L", f"{path} as it is", "-L", "base", "-L", f"{path} as wanted"]
        conflicts, merged, why = Git(scratch).execute(
            ["git", "merge-file", "-p", "--diff3", *labels, "mine", "base", "theirs"],
            with_extended_output=True,
            with_exceptions=False,
            stdout_as_string=False,
            strip_newline_in_stdout=False,
        )
    if conflicts:
        shown = bytes(merged).decode("utf-8", "backslashreplace") if 0 < conflicts < 128 else why
        raise CheckFailed(
            f"{path} cannot be merged, nothing was changed:\n{_only_conflicts(shown)}",
            "edit the file so that it no longer changes these lines, and try again",
        )
    return bytes(merged)


def _only_conflicts(text: str) -> str:
    """The parts of a merge between conflict markers; all of it when there are none (git's own message)."""
    shown: list[str] = []
    inside = False
    for line in text.split("\n"):
        inside = inside or line.startswith("<<<<<<< ")
        if inside:
            shown.append(line)
        if line.startswith(">>>>>>> "):
            inside = False
    return "\n".join(shown) or text
