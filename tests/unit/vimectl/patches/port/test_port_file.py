from __future__ import annotations

from difflib import unified_diff

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vimectl.patches.git_commands import merge_file
from vimectl.patches.patchfile.apply import GitFile
from vimectl.patches.patchfile.file_diff import FileDiff
from vimectl.patches.patchfile.reader import parse
from vimectl.patches.port import changes
from vimectl.patches.port.auto_resolve import first_marker
from vimectl.patches.port.port_file import FilePort, port_file

# Few different lines, so that changes have look-alikes; long ones, imports and conditions among them.
CONDITIONS = ["if condition(one):", "if condition(one) and two:"]
LINE = st.sampled_from(["a", "b", "", "import os", "from a import b", *CONDITIONS, "\xff\r"])
EDIT = st.tuples(st.integers(0, 29), st.sampled_from(["insert", "delete", "replace"]), LINE)


def edited(lines: list[str], edits: list[tuple[int, str, str]]) -> list[str]:
    result = list(lines)
    for place, action, line in edits:
        place %= len(result) + 1
        result[place : place + (action != "insert")] = [] if action == "delete" else [line]
    return result


def content(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode("latin-1")


def diff(old: bytes, new: bytes) -> FileDiff:
    both = [data.decode("latin-1").splitlines(keepends=True) for data in (old, new)]
    text = "".join(unified_diff(*both, "a/f", "b/f"))
    return next(iter(parse(text.encode("latin-1")).diffs), FileDiff(1, "modify", "f", "f"))


def port(old: bytes, patched: bytes, release: bytes) -> FilePort:
    files = map(GitFile, (old, patched, release))
    return port_file("f", diff(old, patched), *files, ("old", "new", "patch"), lambda lines: None)


@settings(max_examples=60, deadline=None)
@given(
    base=st.lists(LINE, min_size=8, max_size=30),
    patch=st.lists(EDIT, min_size=1, max_size=4),
    upstream=st.lists(EDIT, max_size=4),
)
def test_clean_git_merges_are_ported(
    base: list[str], patch: list[tuple[int, str, str]], upstream: list[tuple[int, str, str]]
) -> None:
    old, patched, release = content(base), content(edited(base, patch)), content(edited(base, upstream))
    assert changes.apply_changes(old, list(changes.split(diff(old, patched)))) == patched
    found = port(old, patched, release)
    merged = merge_file(old, release, patched, ("old", "new", "patch"))
    assert found.after
    if merged.clean:
        assert (found.result != "conflict", found.after.content) == (True, merged.content)
    assert (found.result == "conflict") == (first_marker(found.after.content) is not None)
    if found.result == "upstream":
        assert found.after == found.before


@pytest.mark.parametrize(
    ("line", "taken"),
    [("    new_call(one, two)", True), ("    other_call(one)", False)],
)
def test_insertion_with_changed_neighbors_is_recognized(line: str, taken: bool) -> None:
    around = [f"line {number}" for number in range(9)]
    old, patched = content(around), content([*around[:5], "    new_call(one, two)", *around[5:]])
    release = content([*around[:4], "line four", line, "line five", *around[6:]])
    (change,) = changes.split(diff(old, patched))
    assert not changes.is_in_release(change, old, old)
    assert changes.is_in_release(change, old, patched)
    # Its position is ambiguous when both neighbors changed.
    assert port(old, patched, release).result == "conflict"
    release = content([*around[:5], line, "line five", *around[6:]])
    assert (port(old, patched, release).result == "upstream") == taken
