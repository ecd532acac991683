from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.patches.compare_with_git import by_git
from harness.patches.random_patches import pair
from vimectl.cli import run_cli
from vimectl.patches.lint.linter import lint
from vimectl.patches.lint.repair import repair_text
from vimectl.patches.patchfile.reader import parse
from vimectl.patches.release_files import SourceTree

HEAD = b"diff --git a/x b/x\n--- a/x\n+++ b/x\n"
HUNK = b"@@ -1,5 +1,5 @@ def f():\n a\n-b\n+B\n c\n \n \n"
GOOD = HEAD + HUNK


@pytest.mark.parametrize(
    ("damaged", "fixed", "repairs"),
    [
        (GOOD, GOOD, []),
        (GOOD.replace(b"-1,5", b"-1,6"), GOOD, [(4, "hunk-count")]),
        (GOOD.replace(b"+1,5", b"+1,9") + HUNK, GOOD + HUNK, [(4, "hunk-count")]),
        (GOOD.replace(b"1,5", b"1,7") + b"-- \n2.39.5\n", GOOD + b"-- \n2.39.5\n", [(4, "hunk-count")]),
        (GOOD.replace(b"-1,5", b"-1,6")[:-1], GOOD, [(10, "no-final-newline"), (4, "hunk-count")]),
        (GOOD[:-1], GOOD, [(10, "no-final-newline")]),
        (GOOD[:-4], GOOD, [(8, "lost-context")]),
        (GOOD[:-5], GOOD, [(8, "no-final-newline"), (8, "lost-context")]),
        (b"\xef\xbb\xbf" + GOOD, GOOD, [(1, "byte-order-mark")]),
        (GOOD.replace(b"\n", b"\r\n"), GOOD, [(1, "crlf-patch")]),
        (GOOD.replace(b" c\n", b" c\nwrapped\n"), GOOD.replace(b" c\n", b" c\nwrapped\n"), []),
        (GOOD + b"+more\n", GOOD + b"+more\n", []),
        (HEAD + b"@@ -1,5 +1,9 @@\n a\n-b\n+B\n", HEAD + b"@@ -1,5 +1,9 @@\n a\n-b\n+B\n", []),
    ],
)
def test_damage_with_one_right_answer_is_repaired(
    damaged: bytes, fixed: bytes, repairs: list[tuple[int, str]]
) -> None:
    text, done = repair_text(damaged)
    assert text == fixed
    assert [(one.line, one.rule) for one in done] == repairs


def test_carriage_returns_of_the_patched_file_stay(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"a\r\nb\r\nc\r\n \r\n \r\n")
    (tmp_path / "p.patch").write_bytes(GOOD.replace(b" \n", b"  \n").replace(b"\n", b"\r\n"))
    (report,) = lint([tmp_path / "p.patch"], SourceTree(tmp_path), fix=True)
    assert report.ok
    assert (tmp_path / "p.patch").read_bytes() == HEAD + (
        b"@@ -1,5 +1,5 @@ def f():\n a\r\n-b\r\n+B\r\n c\r\n  \r\n  \r\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 300, 100))
def test_patch_that_git_applies_gives_the_same_result_after_repair(tmp_path: Path, first: int) -> None:
    changed = 0
    for seed in range(first, first + 100):
        patch, met = pair(seed)
        fixed, repairs = repair_text(patch)
        if repairs and repairs[0].rule != "crlf-patch":  # without a release, CRLF is what a tool did
            changed += 1
            for name in ("before", "after"):
                (tmp_path / f"{seed}-{name}").mkdir()
            if (before := by_git(patch, met, tmp_path / f"{seed}-before")) is not None:
                assert by_git(fixed, met, tmp_path / f"{seed}-after") == before, seed
            assert not {one.rule for one in parse(fixed).defects} & {"no-final-newline", "lost-context"}
    assert changed


def test_fix_shows_and_writes_what_it_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "p.patch"
    path.write_bytes(GOOD.replace(b"-1,5", b"-1,6")[:-1])
    assert run_cli(["patch", "lint", str(path), "--fix"]) == 0
    assert capsys.readouterr().out == (
        f"{path}:10: fixed: no-final-newline: added the last line feed\n"
        f"{path}:4: fixed: hunk-count: -1,6 +1,5 is -1,5 +1,5\n"
        f"{path}: ok\n"
    )
    assert path.read_bytes() == GOOD
    path.write_bytes(GOOD[:-1])
    assert run_cli(["patch", "lint", str(path), "--fix", "--json"]) == 0
    (file,) = json.loads(capsys.readouterr().out)["files"]
    assert file["fixed"] == [{"line": 10, "rule": "no-final-newline", "message": "added the last line feed"}]
    assert list(tmp_path.iterdir()) == [path]


def test_mail_keeps_its_line_endings(tmp_path: Path) -> None:
    mail = b"From: a@x\r\nSubject: x\r\n\r\n" + GOOD.replace(b"\n", b"\r\n")
    (tmp_path / "x.eml").write_bytes(mail)
    (report,) = lint([tmp_path / "x.eml"], fix=True)
    assert (report.findings, report.fixed) == ([], [])
    assert (tmp_path / "x.eml").read_bytes() == mail
