from __future__ import annotations

import json
from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError

from harness.patches.toy_packages import unpack
from vimectl.cli import run_cli
from vimectl.patches.lint import linter
from vimectl.patches.lint.linter import lint
from vimectl.patches.patchfile.rules import lint_rules
from vimectl.patches.release_files import SourceTree
from vimectl.patches.series import Series

HEAD = b"diff --git a/toy/x.py b/toy/x.py\n--- a/toy/x.py\n+++ b/toy/x.py\n"
FIRST = b"@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n"
SECOND = b"@@ -12,7 +12,8 @@ def f():\n 12\n 13\n 14\n-15\n+fifteen\n+more\n 16\n 17\n 18\n"
GOOD = HEAD + FIRST + SECOND
NUMBERS = b"".join(b"%d\n" % number for number in range(1, 31))


def found(tmp_path: Path, patch: bytes) -> list[tuple[int, str]]:
    (tmp_path / "p.patch").write_bytes(patch)
    return [(finding.line, finding.rule) for finding in lint(tmp_path / "p.patch").findings]


def test_good_patch_has_no_findings(tmp_path: Path) -> None:
    assert found(tmp_path, GOOD) == []
    about_mail = GOOD.replace(b"fifteen", b"equals = '=3D'")
    assert found(tmp_path, about_mail) == []
    assert found(tmp_path, b"Subject: as git format-patch writes it\n---\n x.py | 2 +-\n\n" + GOOD) == []


@pytest.mark.parametrize(
    ("patch", "line", "rule"),
    [
        (GOOD.replace(b"-2,7", b"-2,8"), 4, "hunk-count"),
        (GOOD.replace(b"+12,8", b"+12,7"), 13, "hunk-count"),
        (GOOD.replace(b"-12,7", b"-12,6"), 13, "hunk-count"),
        (GOOD.replace(b"+2,7", b"+3,7"), 4, "hunk-position"),
        (HEAD + b"@@ -2,3 +2,3 @@\n 2\n 3\n-4\n+four\n" + SECOND, 4, "missing-context"),
        (HEAD + b"@@ -5,4 +5,4 @@\n-5\n+five\n 6\n 7\n 8\n" + SECOND, 4, "missing-context"),
        (HEAD + b"@@ -2,4 +2,4 @@\n 2\n 3\n 4\n-5\n+five\n", 4, "end-of-file"),
        (HEAD + b"@@ -5 +5 @@\n-5\n+five\n", 4, "zero-context"),
        (HEAD + SECOND + FIRST, 14, "hunk-order"),
        (HEAD + FIRST + SECOND.replace(b"-12,7 +12,8", b"-8,7 +8,8"), 13, "hunk-overlap"),
        (GOOD.replace(b"a/toy", b"toy").replace(b"b/toy", b"toy"), 3, "no-prefix"),
        (GOOD + GOOD, 23, "duplicate-file"),
        (GOOD[:-4], 21, "truncated"),
        (GOOD.replace(b" 16\n", b" 16\r\n"), 20, "mixed-line-endings"),
        (GOOD.replace(b"\n", b"\r\n"), 1, "crlf-patch"),
        (b"\xef\xbb\xbf" + GOOD, 1, "byte-order-mark"),
        (GOOD.decode().encode("utf-16"), 1, "byte-order-mark"),
        (GOOD.replace(b"fifteen", b"fifteen =3D 15"), 18, "quoted-printable"),
        (b"Content-Transfer-Encoding: quoted-printable\n\n" + GOOD, 1, "quoted-printable"),
        (b"Content-Type: text/plain; charset=utf-8; format=flowed\n\n" + GOOD, 1, "format-flowed"),
        (b"<html><body><pre>\n" + GOOD, 1, "html"),
        (GOOD.replace(b"+more", b"+>From here on"), 19, "from-escaped"),
        (GOOD.replace(b" 13\n", b" 13 is a long\nline\n"), 16, "wrapped-line"),
        (GOOD + b"-- \n2.39.5\n\n", 23, "mail-signature"),
        (HEAD + FIRST.replace(b"-2,7", b"-2,8") + b"-- \n2.39.5\n", 13, "mail-signature"),
        (GOOD.replace(b"--- a/", b"index 1234567..1234567 100644\n--- a/"), 1, "blob-id"),
        (GOOD.replace(b"--- a/", b"index 0000000..1234567 100644\n--- a/"), 1, "blob-id"),
        (GOOD.replace(b"--- a/", b"index 123456X..1234567 100644\n--- a/"), 1, "blob-id"),
        (
            b"diff --git a/n b/n\nnew file mode 100644\nindex 0000000..1234567\n--- /dev/null\n+++ b/n\n"
            b"@@ -0,0 +1 @@\n+x\n",
            1,
            "blob-id",
        ),
    ],
)
def test_defect_is_reported_at_its_line(tmp_path: Path, patch: bytes, line: int, rule: str) -> None:
    assert (line, rule) in found(tmp_path, patch)


def test_all_defects_are_found_in_one_pass(tmp_path: Path) -> None:
    other = GOOD.replace(b"x.py", b"y.py").replace(b"-2,7", b"-2,9")
    assert found(tmp_path, other + GOOD[:-4]) == [(4, "hunk-count"), (43, "truncated")]


def fits(tmp_path: Path, patch: bytes, release: bytes | None) -> list[tuple[int, str, int, int]]:
    (tmp_path / "p.patch").write_bytes(patch)
    (tmp_path / "release" / "toy").mkdir(parents=True, exist_ok=True)
    if release is not None:
        (tmp_path / "release" / "toy" / "x.py").write_bytes(release)
    hunks = lint(tmp_path / "p.patch", SourceTree(tmp_path / "release")).hunks
    return [(hunk.line, hunk.result, hunk.offset, hunk.fuzz) for hunk in hunks]


@pytest.mark.parametrize(
    ("release", "first", "second"),
    [
        (NUMBERS, ("exact", 0, 0), ("exact", 0, 0)),
        (b"new\n" * 4 + NUMBERS, ("offset", 4, 0), ("offset", 4, 0)),
        (NUMBERS.replace(b"5\n", b"five\n", 1), ("applied", 0, 0), ("exact", 0, 0)),
        (NUMBERS.replace(b"12\n", b"twelve\n"), ("exact", 0, 0), ("fuzz", 0, 1)),
        (NUMBERS.replace(b"15\n", b"XV\n"), ("exact", 0, 0), ("does-not-apply", 0, 0)),
        (None, ("does-not-apply", 0, 0), ("does-not-apply", 0, 0)),
    ],
)
def test_hunks_are_compared_with_the_release(
    tmp_path: Path, release: bytes | None, first: tuple[str, int, int], second: tuple[str, int, int]
) -> None:
    assert fits(tmp_path, GOOD, release) == [(4, *first), (13, *second)]


def test_hunk_at_the_end_of_the_release_is_no_warning(tmp_path: Path) -> None:
    patch = HEAD + b"@@ -27,4 +27,5 @@\n 27\n 28\n 29\n 30\n+31\n"
    assert found(tmp_path, patch) == [(4, "end-of-file")]
    assert fits(tmp_path, patch, NUMBERS) == [(4, "exact", 0, 0)]
    assert lint(tmp_path / "p.patch", SourceTree(tmp_path / "release")).findings == ()


def test_wrong_blob_id_is_found(tmp_path: Path) -> None:
    patch = GOOD.replace(b"--- a/", b"index e8823e1..1234567 100644\n--- a/")
    fits(tmp_path, patch, NUMBERS)
    (finding,) = lint(tmp_path / "p.patch", SourceTree(tmp_path / "release")).findings
    assert finding.message == (
        "toy/x.py is 146cd408e7430f2c0140be9d10d29718b38a5a37 after this patch, the index line states 1234567"
    )


def test_patch_of_a_series_is_compared_with_the_series(toy_series: Series, tmp_path: Path) -> None:
    sources = SourceTree(unpack(tmp_path / "release"))
    reports = [lint(path, sources) for path in linter.patches_in([toy_series.directory])]
    assert [report.ok for report in reports] == [True, True]
    assert {hunk.result for report in reports for hunk in report.hunks} == {"exact"}
    for name in ("series.toml", "0001-first.patch", "0002-second.patch"):
        (tmp_path / name).write_bytes((toy_series.directory / name).read_bytes())
    text = (tmp_path / "series.toml").read_text()
    after = toy_series.patch[0].files[0].after
    assert after
    (tmp_path / "series.toml").write_text(text.replace(after, "1" * 40))
    (finding,) = lint(tmp_path / "0001-first.patch").findings
    assert finding.message.endswith(f"after this patch, series.toml has {'1' * 40}")
    (tmp_path / "series.toml").write_text(text)
    (tmp_path / "0001-first.patch").write_text("nothing")
    broken = lint(tmp_path / "0002-second.patch", sources).findings[0]
    assert broken.message.startswith("0001-first.patch, which comes before, does not apply: ")


def test_lint_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "good.patch").write_bytes(GOOD)
    (tmp_path / "bad.patch").write_bytes(GOOD.replace(b"-2,7", b"-2,8"))
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "x.py").write_bytes(NUMBERS)
    assert run_cli(["patch", "lint", str(tmp_path / "good.patch"), "--against", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/good.patch: ok (2 exact)\n"
    assert run_cli(["patch", "lint", str(tmp_path), "--json"]) == 1
    bad, good = json.loads(capsys.readouterr().out)["files"]
    assert good == {"path": str(tmp_path / "good.patch"), "ok": True, "findings": [], "hunks": []}
    assert bad["findings"][0].keys() == {"line", "rule", "severity", "message"}
    assert run_cli(["patch", "lint", str(tmp_path / "none.patch")]) == 2
    with pytest.raises(UsageError, match="toy: no such file") as error:
        linter.open_release("toy")
    assert "PACKAGE==VERSION" in error.value.hint


def test_lint_lists_every_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["patch", "lint", "--rules"]) == 0
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == list(lint_rules())


def test_control_characters_in_names_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = b'"a/toy/\\033[2J\\377" "b/toy/\\033[2J\\377"'
    (tmp_path / "p.patch").write_bytes(b"diff --git " + name + b"\nold mode 100644\nnew mode 104755\n")
    assert run_cli(["patch", "lint", str(tmp_path / "p.patch")]) == 1
    assert r"set-uid: toy/\x1b[2J\udcff: mode 104755" in capsys.readouterr().out
