from __future__ import annotations

from vimectl.patches import edits
from vimectl.patches.series import Series
from vimectl.patches.state import classify
from vimectl.patches.target import PatchTarget


def test_from_release_shows_patches_and_nothing_of_a_pristine_target(
    target: PatchTarget, toy_series: Series
) -> None:
    assert edits.diff_from_release(classify(target, toy_series)) == ""
    (target.location / "toy/both.py").write_bytes(b"a\nB\nc\nd\n")
    (target.location / "toy/new.py").write_bytes(b"made by a patch\n")
    (target.location / "toy/crlf.py").write_bytes(b"one\r\nTWO\xff\r\nthree")
    assert edits.diff_from_release(classify(target, toy_series)).splitlines() == [
        "--- a/toy/both.py",
        "+++ b/toy/both.py",
        "@@ -1,4 +1,4 @@",
        " a",
        "-b",
        "+B",
        " c",
        " d",
        "--- /dev/null",
        "+++ b/toy/new.py",
        "@@ -0,0 +1 @@",
        "+made by a patch",
        "--- a/toy/crlf.py",
        "+++ b/toy/crlf.py",
        "@@ -1,3 +1,3 @@",
        " one",
        "-two\\xff",
        "+TWO\\xff",
        " three",
        "\\ No newline at end of file",
    ]


def test_edits_of_a_file_without_a_copy_of_its_release_are_named(
    target: PatchTarget, toy_series: Series
) -> None:
    (target.location / "toy/both.py").write_bytes(b"edited\n")
    shown = edits.diff_of_edits(classify(target, toy_series))
    assert shown.startswith("# toy/both.py: its edits cannot be shown: no copy of toy/both.py as released")


def test_a_missing_file_of_the_release_is_shown_as_removed(target: PatchTarget, toy_series: Series) -> None:
    blob = toy_series.chains["toy/both.py"][0]
    kept = target.location / ".vimectl" / "original" / str(blob)
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"a\nb\nc\nd\n")
    (target.location / "toy/both.py").unlink()
    shown = edits.diff_of_edits(classify(target, toy_series)).splitlines()
    assert shown[:3] == ["--- a/toy/both.py", "+++ /dev/null", "@@ -1,4 +0,0 @@"]
