from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError

from harness.patches.git_and_quilt import committed, run
from vimectl.cli import run_cli
from vimectl.patches.lint.linter import lint
from vimectl.patches.patchfile.rules import lint_rules
from vimectl.patches.release_files import SourceTree, open_release

HEAD = b"diff --git a/toy/x.py b/toy/x.py\n--- a/toy/x.py\n+++ b/toy/x.py\n"
FIRST = b"@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n"
SECOND = b"@@ -12,7 +12,8 @@ def f():\n 12\n 13\n 14\n-15\n+fifteen\n+more\n 16\n 17\n 18\n"
GOOD = HEAD + FIRST + SECOND
NUMBERS = b"".join(b"%d\n" % number for number in range(1, 31))


def found(tmp_path: Path, patch: bytes) -> list[tuple[int, str]]:
    (tmp_path / "p.patch").write_bytes(patch)
    (report,) = lint([tmp_path / "p.patch"])
    return [(finding.line, finding.rule) for finding in report.findings]


LAST = b"@@ -1 +1 @@\n-x\n\\ No newline at end of file\n+y\n\\ No newline at end of file\n"


@pytest.mark.parametrize(
    "patch",
    [
        GOOD,
        HEAD + LAST,
        GOOD.replace(b"fifteen", b"equals = '=3D'"),
        b"Subject: as git format-patch writes it\n---\n x.py | 2 +-\n\n" + GOOD,
        b"Index: toy/x.py\r\n" + GOOD.partition(b"\n")[2].replace(b".py\n", b".py\r\n"),  # as svn writes
        GOOD.partition(b"\n")[2].replace(b"f():\n", b"f():\r\n"),  # as GNU diff -p writes
        b"Add a tag that is rendered as\n<pre> block\n\n" + GOOD,
        b"Content-Transfer-Encoding: quoted-printable\n\n" + GOOD,  # of a part that is decoded already
    ],
)
def test_good_patch_has_no_findings(tmp_path: Path, patch: bytes) -> None:
    assert found(tmp_path, patch) == []


@pytest.mark.parametrize(
    ("patch", "line", "rule"),
    [
        (GOOD.replace(b"+12,8", b"+12,7"), 13, "hunk-count"),
        (GOOD.replace(b"-12,7", b"-12,6"), 13, "hunk-count"),
        (GOOD.replace(b"+2,7", b"+3,7"), 4, "hunk-position"),
        (HEAD + b"@@ -2,3 +2,3 @@\n 2\n 3\n-4\n+four\n" + SECOND, 4, "zero-context"),
        (HEAD + b"@@ -5,4 +5,4 @@\n-5\n+five\n 6\n 7\n 8\n" + SECOND, 4, "missing-context"),
        (HEAD + b"@@ -2,4 +2,4 @@\n 2\n 3\n 4\n-5\n+five\n", 4, "end-of-file"),
        (HEAD + b"@@ -5 +5 @@\n-5\n+five\n", 4, "end-of-file"),
        (HEAD + b"@@ -5 +5 @@\n-5\n+five\n" + SECOND, 4, "zero-context"),
        (HEAD + SECOND + FIRST, 14, "hunk-order"),
        (HEAD + FIRST + SECOND.replace(b"-12,7 +12,8", b"-8,7 +8,8"), 13, "hunk-overlap"),
        (GOOD.replace(b"a/toy", b"toy").replace(b"b/toy", b"toy"), 3, "no-prefix"),
        (GOOD + b"diff --git a/toy/x.py b/y\nrename from toy/x.py\nrename to y\n", 23, "duplicate-file"),
        (GOOD.replace(b" 16\n", b" 16\r\n"), 20, "mixed-line-endings"),
        (GOOD.replace(b"\n", b"\r\n"), 1, "crlf-patch"),
        (GOOD.decode().encode("utf-16"), 1, "utf-16"),
        (GOOD.replace(b"fifteen", b"fifteen =3D 15"), 18, "quoted-printable"),
        (
            b"Content-Transfer-Encoding: quoted-printable\n\n" + GOOD.replace(b" 13\n", b" thir=\nteen\n"),
            1,
            "quoted-printable",
        ),
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
    assert found(tmp_path, other + GOOD[:-4]) == [(4, "hunk-count"), (43, "lost-context")]


def fits(tmp_path: Path, patch: bytes, release: bytes | None) -> list[tuple[int, str, int, int]]:
    (tmp_path / "p.patch").write_bytes(patch)
    (tmp_path / "release" / "toy").mkdir(parents=True, exist_ok=True)
    if release is not None:
        (tmp_path / "release" / "toy" / "x.py").write_bytes(release)
    (report,) = lint([tmp_path / "p.patch"], SourceTree(tmp_path / "release"))
    return [(hunk.line, hunk.result, hunk.offset, hunk.fuzz) for hunk in report.hunks]


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


def against(tmp_path: Path, patch: bytes, strip: int | None = None) -> list[tuple[str, str, str]]:
    """Return severity, rule and message of what lint finds in a patch of the release."""
    fits(tmp_path, patch, NUMBERS)
    (report,) = lint([tmp_path / "p.patch"], SourceTree(tmp_path / "release"), strip)
    return [(finding.severity, finding.rule, finding.message) for finding in report.findings]


@pytest.mark.parametrize(
    "patch",
    [
        HEAD + b"@@ -27,4 +27,5 @@\n 27\n 28\n 29\n 30\n+31\n",
        HEAD + b"@@ -4,5 +4,5 @@\n 4\n-5\n+five\n 6\n 7\n 8\n",
    ],
)
def test_release_confirms_that_context_is_missing_for_a_reason(tmp_path: Path, patch: bytes) -> None:
    assert {rule for _, rule in found(tmp_path, patch)} & {"end-of-file", "missing-context"}
    assert against(tmp_path, patch) == []


def test_wrong_blob_ids_of_fitting_hunks_are_warnings(tmp_path: Path) -> None:
    old, new = against(tmp_path, GOOD.replace(b"--- a/", b"index 7654321..1234567 100644\n--- a/"))[::-1]
    assert (
        old[2] == f"toy/x.py is e8823e1{old[2][19:52]} in {tmp_path}/release, the index line states 7654321"
    )
    assert new[2].endswith("after this patch, the index line states 1234567")
    assert {old[:2], new[:2]} == {("warning", "blob-id")}


@pytest.mark.parametrize(
    ("old", "new", "level", "path"),
    [(b"/toy/", b"/src/toy/", 2, "src/toy/x.py"), (b"a/toy", b"toy", 0, "x.py")],
)
def test_names_that_fit_at_another_strip_level(
    tmp_path: Path, old: bytes, new: bytes, level: int, path: str
) -> None:
    patch = GOOD.replace(old, new).replace(b"b/toy", b"toy" if level == 0 else b"b/toy")
    errors = [message for severity, _, message in against(tmp_path, patch) if severity == "error"]
    assert errors[:2] == [
        f"{tmp_path}/release has no {path}",
        f"-p {level} finds 1 of 1 files, as toy/x.py",
    ]
    assert against(tmp_path, patch, level) == []


def test_line_endings_are_named_as_the_reason(tmp_path: Path) -> None:
    messages = [message for _, _, message in against(tmp_path, GOOD.replace(b"\n", b"\r\n"))]
    assert messages[1].endswith("toy/x.py: its lines end in CRLF, those of the file in LF")
    (tmp_path / "release" / "toy" / "x.py").write_bytes(NUMBERS.replace(b"\n", b"\r\n"))
    (report,) = lint([tmp_path / "p.patch"], SourceTree(tmp_path / "release"))
    assert report.ok


def test_two_diffs_of_one_file_apply_in_turn(tmp_path: Path) -> None:
    second = HEAD + SECOND.replace(b"-15\n+fifteen\n+more\n", b"-15\n+XV\n").replace(b"12,8", b"12,7")
    assert against(tmp_path, HEAD + FIRST + second) == []


def test_deleted_binary_file_has_no_new_id(tmp_path: Path) -> None:
    ids = b"index 0dd6d2a9b5f3a1bcfbb2c2f8c9f1a0d3e5b6c7d8..0000000000000000000000000000000000000000\n"
    data = b"GIT binary patch\nliteral 0\nHcmV?d00001\n\nliteral 0\nHcmV?d00001\n\n"
    patch = b"diff --git a/x b/x\ndeleted file mode 100644\n" + ids + data
    assert found(tmp_path, patch) == []
    assert found(tmp_path, patch.replace(b"0" * 33, b"")) == [(1, "binary-ids")]


def commits(tmp_path: Path) -> Path:
    """Return a folder with two patches of which the second changes what the first one made, as mails."""
    release = tmp_path / "release"
    (release / "toy").mkdir(parents=True)
    (release / "toy" / "x.py").write_bytes(NUMBERS)
    committed(release)
    for text in ("six", "SIX"):
        lines = NUMBERS.splitlines(keepends=True)
        lines[5] = f"{text}\n".encode()
        (release / "toy" / "x.py").write_bytes(b"".join(lines))
        run(release, "git", "commit", "-qam", text)
    run(release, "git", "format-patch", "-q", "--full-index", "-2", "-o", str(tmp_path / "folder"))
    (tmp_path / "all.mbox").write_text(run(release, "git", "format-patch", "-2", "--stdout"))
    run(release, "git", "reset", "-q", "--hard", "HEAD^^")
    return release


def test_patches_of_a_mailbox_or_folder_apply_on_each_other(tmp_path: Path) -> None:
    release = SourceTree(commits(tmp_path))
    (mailbox,) = lint([tmp_path / "all.mbox"], release)
    first, second = lint([tmp_path / "folder"], release)
    assert (mailbox.findings, first.findings, second.findings) == ([], [], [])
    text = (tmp_path / "all.mbox").read_bytes().split(b"\n")
    assert [text[hunk.line - 1][:2] for hunk in mailbox.hunks] == [b"@@", b"@@"]
    (alone,) = lint([second.path], release)
    assert not alone.ok
    (tmp_path / "folder" / "series").write_text(f"{first.path.name}\n{second.path.name}\n")
    assert "series-ids" not in {one.rule for one in lint([first.path])[0].findings}
    (in_series,) = lint([second.path], release)
    assert (in_series.path, in_series.findings) == (second.path, [])


def test_patch_of_a_series_needs_full_ids_that_follow_each_other(tmp_path: Path) -> None:
    commits(tmp_path)
    first, second = sorted((tmp_path / "folder").iterdir())
    (tmp_path / "folder" / "series").write_text(f"{first.name}\n{second.name}\n")
    assert [report.findings for report in lint([tmp_path / "folder"])] == [[], []]
    text = second.read_bytes()
    old = text.partition(b"index ")[2][:40]
    second.write_bytes(text.replace(old, old[:7]))
    (finding,) = lint([tmp_path / "folder"])[1].findings
    assert (finding.rule, finding.severity) == ("series-ids", "warning")
    assert (
        finding.message == "an index line is missing or abbreviated; `vimectl patch import` writes full ids"
    )
    second.write_bytes(text.replace(old, b"1" * 40))
    (finding,) = lint([tmp_path / "folder"])[1].findings
    assert finding.message == f"toy/x.py has the id {old.decode()} after the patches before, not {'1' * 40}"


def test_folder_of_series_is_linted_series_by_series(tmp_path: Path) -> None:
    commits(tmp_path)
    for folder in ("toy/1.0", "toy/1.0/older", "toy/2.0", ".git/toy"):
        shutil.copytree(tmp_path / "folder", tmp_path / "all" / folder)
    reports = lint([tmp_path / "all"])
    assert [one.path.parent.name for one in reports] == ["1.0", "1.0", "2.0", "2.0"]
    assert [one.findings for one in reports] == [[]] * 4


def test_findings_in_an_encoded_mail_name_the_decoded_line(tmp_path: Path) -> None:
    head = b"From: a@x\nSubject: x\nContent-Transfer-Encoding: base64\n\n"
    (tmp_path / "x.eml").write_bytes(head + base64.encodebytes(b"\n" + GOOD.replace(b"-2,7", b"-2,8")))
    (report,) = lint([tmp_path / "x.eml"])
    assert report.findings[0].line == 1
    assert report.findings[0].message.startswith("line 5 of the decoded text: the @@ line states 8 old")


def test_lint_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "good.patch").write_bytes(GOOD)
    (tmp_path / "bad.patch").write_bytes(GOOD.replace(b"-2,7", b"-2,8"))
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "x.py").write_bytes(NUMBERS)
    assert run_cli(["patch", "lint", str(tmp_path / "good.patch"), "--against", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/good.patch: ok (2 exact)\n"
    assert run_cli(["patch", "lint", str(tmp_path), "--json"]) == 1
    bad, good = json.loads(capsys.readouterr().out)["files"]
    nothing: dict[str, list[object]] = {"findings": [], "hunks": [], "fixed": []}
    assert good == {"path": str(tmp_path / "good.patch"), "ok": True, **nothing}
    assert bad["findings"][0].keys() == {"line", "rule", "severity", "message"}
    assert run_cli(["patch", "lint", str(tmp_path), "--format", "github"]) == 1
    assert capsys.readouterr().out == (
        f"::error file={tmp_path}/bad.patch,line=4,title=hunk-count::"
        "the @@ line states 8 old and 7 new lines, there are 7 and 7\n"
    )
    assert run_cli(["patch", "lint", str(tmp_path / "none.patch")]) == 2
    with pytest.raises(UsageError, match="toy: no such file") as error:
        open_release("toy")
    assert "PACKAGE==VERSION" in error.value.hint


def test_lint_lists_every_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["patch", "lint", "--rules"]) == 0
    assert [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()] == list(lint_rules())


def test_control_characters_in_names_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = b'"a/toy/\\033[2J\\377" "b/toy/\\033[2J\\377"'
    (tmp_path / "p.patch").write_bytes(b"diff --git " + name + b"\nold mode 100644\nnew mode 104755\n")
    assert run_cli(["patch", "lint", str(tmp_path / "p.patch")]) == 1
    assert r"set-uid: toy/\x1b[2J\udcff: mode 104755" in capsys.readouterr().out
