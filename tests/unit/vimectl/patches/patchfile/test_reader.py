from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vime_runtime.spec.errors import UsageError

from vimectl.patches.patchfile.apply import GitFile, apply_patch
from vimectl.patches.patchfile.file_diff import FileDiff
from vimectl.patches.patchfile.reader import LARGEST, MOST_LINES, load, parse
from vimectl.patches.patchfile.rules import all_defects

# Pieces of patches, in any order and cut anywhere.
PIECES = rb"""diff --git a/x b/x
--- a/x
+++ b/x
--- /dev/null
@@ -1,2 +1,2 @@
@@ -0,0 +1 @@
 c
-o
+n

\ No newline at end of file
new file mode 100644
deleted file mode 120000
old mode 100644
new mode 104755
rename from x
rename to y
copy from x
index 0000000..1234567 100644
GIT binary patch
literal 3
delta 9
Binary files a/x and b/x differ
zcmXxxxxx
"""
CUT = (b"diff --git ", b"+++ ", b"@@ -", b"\\ ", b"\r\n", b'"a/\\303\\244"', b"\0", b"\xff", b"9" * 30)
PIECE = st.sampled_from([*PIECES.splitlines(keepends=True), *CUT])
TEXT = st.lists(st.one_of(PIECE, st.binary(max_size=8)), max_size=40).map(b"".join)


@settings(max_examples=300, deadline=2000)
@given(TEXT)
def test_any_text_is_parsed_without_an_error(data: bytes) -> None:
    patch = parse(data)
    lines = data.count(b"\n") + 1
    assert patch.diffs or patch.defects
    assert all(1 <= defect.line <= lines for defect in all_defects(patch))


HEAD = b"diff --git a/x b/x\n--- a/x\n+++ b/x\n"
FILE = b"--- a/%d\n+++ b/%d\n@@ -1 +1 @@\n-a\n+b\n"


def one(patch: bytes) -> FileDiff:
    (diff,) = parse(patch).diffs
    return diff


@pytest.mark.parametrize(
    ("old", "new", "strip", "path"),
    [
        (b"a/x.py", b"b/x.py", None, "x.py"),
        (b"a/a blank\t2026-01-01 00:00:00 +0000", b"b/a blank\t2026-01-01", None, "a blank"),
        (b"a/t\tx\t2026-01-01 00:00:00 +0000", b"b/t\tx\t2026-01-01 00:00:01 +0000", None, "t\tx"),
        (b"a/x.py 2026-01-01 00:00:00", b"b/x.py 2026-01-01 00:00:00", None, "x.py"),
        (b"a/x.py.orig", b"b/x.py", None, "x.py"),
        (b"a/x.py", b"b/x.py~", None, "x.py"),
        (b'"a/\\303\\244.py"', b'"b/\\303\\244.py"', None, "ä.py"),
        (b'"a/\\377"', b'"b/\\377"', None, "\udcff"),
        (b"old/toy//x.py", b"new/toy//x.py", None, "toy/x.py"),
        (b"x.py.orig\t2026-01-01 00:00:00.0 +0000", b"x.py\t2026-01-01 00:00:01.0 +0000", None, "x.py"),
        (b"pkg/x.py\t(revision 7)", b"x.py\t(working copy)", None, "x.py"),
        (b"pkg/x.py", b"pkg/x.py", None, "x.py"),
        (b"pkg/x.py", b"pkg/x.py", 0, "pkg/x.py"),
        (b"a/src/pkg/x.py", b"b/src/pkg/x.py", 2, "pkg/x.py"),
        (b"/srv/pkg/x.py", b"/srv/pkg/x.py", 2, "pkg/x.py"),
    ],
)
def test_names_are_read_and_stripped_as_git_does(
    old: bytes, new: bytes, strip: int | None, path: str
) -> None:
    patch = parse(b"--- %s\n+++ %s\n@@ -1 +1 @@\n-a\n+b\n" % (old, new), strip)
    (diff,) = patch.diffs
    assert (diff.action, diff.old_path, diff.new_path) == ("modify", path, path)
    if "\t" not in path:  # such a path is refused
        assert apply_patch(patch, {path: GitFile(b"a\n")}.get) == {path: GitFile(b"b\n")}


@pytest.mark.parametrize(
    ("names", "strip", "path"),
    [
        (b"a/x y b/x y", None, "x y"),
        (b"src/x.py src/x.py", 0, "src/x.py"),
        (b'"a/s/\\303\\244 x" "b/s/\\303\\244 x"', 2, "ä x"),
        (b'a/x "b/x"', None, "x"),
    ],
)
def test_name_of_a_git_line(names: bytes, strip: int | None, path: str) -> None:
    (diff,) = parse(b"diff --git " + names + b"\nold mode 100644\nnew mode 100755\n", strip).diffs
    assert (diff.old_path, diff.new_path) == (path, path)


def test_guessed_level_is_that_of_the_following_diffs() -> None:
    other = b"diff --git a/x b/x\nold mode 100644\nnew mode 100755\n"
    first = b"--- x.py\n+++ x.py\n@@ -1 +1 @@\n-a\n+b\n"
    assert [diff.new_path for diff in parse(other + other).diffs] == ["x", "x"]
    assert [diff.new_path for diff in parse(first + other.replace(b"b/x", b"a/x")).diffs] == ["x.py", "a/x"]


def test_too_few_folders_for_the_strip_level() -> None:
    (defect,) = parse(FILE % (1, 1), 3).defects
    assert defect.message.startswith("there is no name, or no more than 3 of its folders")


def test_byte_order_mark_hides_nothing() -> None:
    patch = parse(b"\xef\xbb\xbf" + b"diff --git a/x b/x\nold mode 100644\nnew mode 100755\n")
    assert [diff.new_mode for diff in patch.diffs] == ["100755"]
    assert [(one.line, one.rule) for one in patch.defects] == [(1, "byte-order-mark")]
    assert patch.text.startswith(b"diff")


@pytest.mark.parametrize(("name", "rules"), [(b"x", []), (b"y", ["empty-diff"])])
def test_separated_header_is_no_empty_diff(name: bytes, rules: list[str]) -> None:
    text = b"diff --git a/%s b/%s\n\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n" % (name, name)
    assert [defect.rule for defect in parse(text).defects] == rules


CHANGE = b"@@ -1,3 +1,3 @@\n a\n-b\n+B\n"


@pytest.mark.parametrize(
    ("hunk", "defects"),
    [
        (CHANGE + b" c", [(8, "no-final-newline")]),
        (CHANGE, [(7, "lost-context")]),
        (CHANGE[:-2], [(7, "truncated")]),
        (CHANGE.replace(b"1,3 @", b"1,5 @"), [(7, "truncated")]),
        (CHANGE + b" c\n ", []),
        (CHANGE + b" c\n\n", []),
        (CHANGE + b" c\n-- \r\n2.39.5\r\n", []),
        (CHANGE + b" c\n-- \n-- \n2.39.5\n", []),
        (CHANGE + b" c\n---\n", [(4, "hunk-count")]),  # perhaps the removal of --
        (CHANGE + b" c\n d\n", [(4, "surplus-context")]),
        (CHANGE + b" c\n+d\n", [(4, "hunk-count")]),
        (CHANGE + b" c\n\n" + CHANGE + b" c\n", [(4, "hunk-count")]),
    ],
)
def test_end_of_a_hunk_is_told_apart(hunk: bytes, defects: list[tuple[int, str]]) -> None:
    assert [(one.line, one.rule) for one in parse(HEAD + hunk).defects] == defects


def test_translated_mark_of_a_missing_newline_is_read() -> None:
    hunk = b"@@ -1 +1 @@\n-a\n\\ Kein Zeilenumbruch am Dateiende.\n+b\n\\ Kein Zeilenumbruch am Dateiende.\n"
    assert one(HEAD + hunk).hunks[0].content == (("-", b"a"), ("+", b"b"))


CONTEXT_DIFF = b"*** a/x\n--- b/x\n***************\n*** 1,2 ****\n! a\n  b\n--- 1,2 ----\n! A\n  b\n"
COMBINED = b"diff --cc x\nindex 1,2..3\n--- a/x\n+++ b/x\n@@@ -1,1 -1,1 +1,1 @@@\n- a\n -b\n++c\n"


@pytest.mark.parametrize(
    ("text", "line", "rule"),
    [
        (COMBINED, 1, "combined-diff"),
        (COMBINED.replace(b"cc", b"combined"), 1, "combined-diff"),
        (CONTEXT_DIFF, 3, "context-diff"),
        (b"Binary files a/x and b/x differ\n", 1, "binary-without-data"),
    ],
)
def test_diffs_that_git_passes_over_are_named(text: bytes, line: int, rule: str) -> None:
    assert [(one.line, one.rule) for one in parse(text).defects] == [(line, rule)]
    mixed = parse(text + FILE % (1, 1))
    assert [(one.line, one.rule) for one in mixed.defects] == [(line, rule)]
    assert [diff.path for diff in mixed.diffs] == ["1"]


def test_gnu_diff_epoch_means_no_file() -> None:
    patch = b"--- a/x\t1970-01-01 01:00:00.000000000 +0100\n+++ b/x\t2026-01-01 00:00:00.0 +0000\n"
    assert one(patch + b"@@ -0,0 +1 @@\n+b\n").action == "create"


def test_header_fields_are_parsed() -> None:
    head = b"words\n\ndiff --git a/x b/y\nold mode 100644\nnew mode 100755\nsimilarity index 90%\n"
    names = b"rename from x\nrename to y\nindex 1234567..89abcde\n--- a/x\n+++ b/y\n"
    diff = one(head + names + b"@@ -1 +1 @@\n-a\n+b\n")
    assert diff[:8] == (3, "rename", "x", "y", "100644", "100755", "1234567", "89abcde")
    assert [hunk.line for hunk in diff.hunks] == [12]


def test_file_with_too_many_lines_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.patch").write_bytes(HEAD + b"\n" * MOST_LINES)
    with pytest.raises(UsageError, match="more than 8 MiB or 200000 lines"):
        load(tmp_path / "p.patch")


# Each of the maximum size, and as expensive to read as possible.
LINES = MOST_LINES - 10
EXPENSIVE: dict[str, Callable[[], bytes]] = {
    "random": lambda: Random(1).randbytes(LARGEST),
    "line feeds": lambda: b"\n" * LINES,
    "no line feed": lambda: b"diff --git a/" + b"x " * (LARGEST // 2 - 9),
    "headers": lambda: b"diff --git a/x b/x\n" * LINES,
    "long headers": lambda: (b"diff --git a/" + b"x " * 4000 + b"\n") * (LARGEST // 8020),
    "orphans": lambda: b"@@ -1 +1 @@\n" * LINES,
    "hunks": lambda: HEAD + b"@@ -1 +1 @@\n-a\n+b\n" * (LINES // 3),
    "one hunk": lambda: HEAD + b"@@ -0,0 +1,%d @@\n" % (LINES - 4) + b"+\n" * (LINES - 4),
    "files": lambda: b"".join(FILE % (number, number) for number in range(LINES // 5)),
}
# A reader that takes more than linear time would take hours: RLIMIT_CPU ends it.
MEASURE = """
import resource, sys
from pathlib import Path
from vimectl.patches.lint.linter import lint
resource.setrlimit(resource.RLIMIT_CPU, (600, 600))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
lint([Path(sys.argv[1])])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def memory_cost(path: Path, data: bytes) -> float:
    """Return the additional memory in MiB that linting a file takes."""
    path.write_bytes(data)
    done = subprocess.run([sys.executable, "-c", MEASURE, path], check=True, capture_output=True, text=True)
    return int(done.stdout) / 1024


@pytest.mark.parametrize(
    "kind", [kind if kind == "hunks" else pytest.param(kind, marks=pytest.mark.slow) for kind in EXPENSIVE]
)
def test_expensive_input_is_read_within_bounds(tmp_path: Path, kind: str) -> None:
    assert memory_cost(tmp_path / "garbage.patch", EXPENSIVE[kind]()) < 96


def test_large_garbage_is_refused_within_bounds(tmp_path: Path) -> None:
    assert memory_cost(tmp_path / "garbage.patch", Random(1).randbytes(100_000_000)) < 32


@pytest.mark.parametrize(
    "line",
    [b'"a/quo\\"te" "b/quo\\"te"\r', b'"a/quo\\"te"  "b/quo\\"te"', b'"a/x" b/x', b'a/x "b/x"\r', b"a/x b/x"],
)
def test_name_in_quotes_on_the_first_line_of_a_diff(line: bytes) -> None:
    (diff,) = parse(b"diff --git " + line + b"\nold mode 100644\nnew mode 100755\n").diffs
    assert diff.path in ('quo"te', "x")
