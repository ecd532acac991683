"""Carry what one patch does to one file from the release it was made for to another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from vimectl.patches.port import auto_resolve, changes
from vimectl.patches.port.changes import Change
from vimectl.patches.port.three_way import Merged, marked_line, merge

# Where in the new release lines stand, other than in the file itself; None: nowhere near.
Elsewhere = Callable[[list[bytes]], "str | None"]
# The gravest last: the result of a patch is the gravest of its files', where any is left to do.
Result = Literal["upstream", "clean", "offset", "conflict"]
ORDINARY = "100644"
HunkResult = Literal["upstream", "gone", "clean", "offset", "conflict"]
RESULTS: tuple[Result, ...] = ("upstream", "clean", "offset", "conflict")


@dataclass(frozen=True)
class HunkPort:
    """One hunk. ``line`` is what it changes in the old release, ``moved`` how much lower it lies now.

    ``gone``: it only adds to lines that the new release no longer has. ``note`` says more of a conflict.
    """

    line: int
    result: HunkResult
    moved: int = 0
    note: str = ""


@dataclass(frozen=True)
class FilePort:
    """One file of a patch: content before and after it in the new release (None: no such file).

    With ``conflict``, ``after`` is for somebody to edit: the merge with git's markers, where there is one.
    ``modes`` are git's, before and after.
    """

    path: str
    result: Result
    before: bytes | None
    after: bytes | None
    note: str = ""
    hunks: tuple[HunkPort, ...] = ()
    modes: tuple[str, str] = (ORDINARY, ORDINARY)


@dataclass(frozen=True)
class Names:
    """What conflict markers call the three sides."""

    old: str
    patch: str
    new: str


def port(
    path: str,
    base: bytes | None,
    patched: bytes | None,
    release: bytes | None,
    hunks: list[Change],
    names: Names,
    elsewhere: Elsewhere,
) -> FilePort:
    """Carry a patch of a file over.

    Args:
        base, patched: the file in the old release before and after the patch.
        release: the file in the new release, with the patches before this one.
        hunks: those of the patch, for ``base``.
    """
    if patched == release:
        return FilePort(path, "upstream", release, release, f"{names.new} has it")
    if base is None or patched is None or release is None:
        return _without_a_side(path, base, patched, release, names)
    merged = _merge(base, patched, release, names)
    if merged.clean:
        done = tuple(
            replace(port, result="offset") if port.result == "conflict" else port
            for port in (_hunk(hunk, base, release, names) for hunk in hunks)
        )
        if merged.content == release:
            return FilePort(path, "upstream", release, release, f"{names.new} has it", done)
        return _merged(path, release, merged, done, names)
    if merged.conflicts is None:
        return FilePort(path, "conflict", release, release, "it is not text: git cannot merge it")
    done = tuple(_judged(hunk, base, release, names, elsewhere) for hunk in hunks)
    left = [hunk for hunk, port in zip(hunks, done, strict=True) if port.result not in ("upstream", "gone")]
    if not left:
        return FilePort(path, "upstream", release, release, _left_out(done, names), done)
    merged = _merge(base, changes.apply(base, left), release, names)
    if merged.clean:
        return _merged(path, release, merged, done, names)
    note = "; ".join([_places(merged), *(port.note for port in done if port.note)])
    return FilePort(path, "conflict", release, merged.content, note, _in_conflict(done))


def _merged(path: str, release: bytes, merged: Merged, done: tuple[HunkPort, ...], names: Names) -> FilePort:
    same = all(port.result == "clean" for port in done)
    return FilePort(
        path, "clean" if same else "offset", release, merged.content, _left_out(done, names), done
    )


def _hunk(hunk: Change, base: bytes, release: bytes, names: Names) -> HunkPort:
    """Judge one hunk as if it were the whole patch, by merging alone."""
    alone = changes.apply(base, [hunk])
    merged = _merge(base, alone, release, names)
    if not merged.clean:
        return HunkPort(hunk.line, "conflict")
    if merged.content == release:
        return HunkPort(hunk.line, "upstream")
    moved = changes.moved(base, alone, release, merged.content)
    in_place = changes.apply(release, [hunk]) == merged.content and changes.fits(hunk, release)
    return HunkPort(hunk.line, "clean" if in_place else "offset", moved)


def _judged(hunk: Change, base: bytes, release: bytes, names: Names, elsewhere: Elsewhere) -> HunkPort:
    """Judge a hunk of a patch that does not merge: it may be upstream all the same, or have nothing to do."""
    port = _hunk(hunk, base, release, names)
    if port.result != "conflict":
        return port
    if changes.stands_in(hunk, base, release):
        return replace(port, result="upstream")
    if not auto_resolve.is_gone(hunk, _merge(base, changes.apply(base, [hunk]), release, names), release):
        return port
    place = elsewhere(auto_resolve.removed(hunk))
    if place:
        return replace(port, note=f"what was changed at line {hunk.line} is in {place} now")
    return replace(port, result="gone")


def _in_conflict(done: tuple[HunkPort, ...]) -> tuple[HunkPort, ...]:
    """Hunks that merge alone can be in each other's way: then it is all of them."""
    if any(port.result == "conflict" for port in done):
        return done
    return tuple(replace(port, result="conflict") for port in done)


def _without_a_side(
    path: str, base: bytes | None, patched: bytes | None, release: bytes | None, names: Names
) -> FilePort:
    """The patch creates or deletes the file, or the new release no longer has it."""
    if base == release:
        return FilePort(path, "clean", release, patched)
    if release is None:
        return FilePort(path, "conflict", None, None, f"{names.new} does not have this file")
    merged = _merge(base or b"", patched or b"", release, names)
    note = (
        f"{names.new} has such a file too"
        if base is None
        else f"the patch deletes it, {names.new} changed it"
    )
    return FilePort(path, "conflict", release, merged.content, note)


def _merge(base: bytes, patched: bytes, release: bytes, names: Names) -> Merged:
    return auto_resolve.joined_imports(merge(base, patched, release, (names.old, names.patch, names.new)))


def _places(merged: Merged) -> str:
    line = marked_line(merged.content)
    places = "1 place" if merged.conflicts == 1 else f"{merged.conflicts} places"
    return f"{places} where both changed the same lines, marked from line {line} on"


def _left_out(done: tuple[HunkPort, ...], names: Names) -> str:
    """Say which hunks are left out, and why."""
    if done and all(port.result == "upstream" for port in done):
        return f"{names.new} has it"
    notes = []
    for result, what in (("upstream", "has"), ("gone", "no longer has")):
        lines = [str(port.line) for port in done if port.result == result]
        if lines:
            notes.append(f"{names.new} {what} what was changed at line {', '.join(lines)}")
    return "; ".join(notes)
