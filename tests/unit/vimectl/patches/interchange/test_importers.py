from __future__ import annotations

import quopri
import shutil
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError

from harness.git import ENVIRONMENT
from harness.patches.git_and_quilt import quilt_push, run
from vimectl.patches import series as series_files
from vimectl.patches.git_tree import CommitFiles
from vimectl.patches.interchange.exporters import export_series
from vimectl.patches.interchange.importers import Imported, import_patches
from vimectl.patches.path_rules import PathRule
from vimectl.patches.release_files import SourceTree

PATHS = (
    *("pkg/E=128,N=384,device_name=X.json", ".github/workflows/ci.yml", ".gitignore", "pkg/a+b.py"),
    *("pkg/a b.txt", "docs/快速开始.md", "pkg/@types/x.ts", 'pkg/a"quote.py', "[a-z]*?.txt"),
)
HUNK = "@@ -3,7 +3,7 @@\n l3\n l4\n l5\n-l6\n+six\n l7\n l8\n l9\n"


def replace_line(path: Path, line: bytes = b"l6", by: bytes = b"six") -> None:
    path.write_bytes(path.read_bytes().replace(line, by, 1))


def chmod_and_edit(work: Path) -> None:
    (work / "pkg" / "run.sh").chmod(0o644)
    replace_line(work / "pkg" / "run.sh")


def rename_executable(work: Path) -> None:
    (work / "pkg" / "run.sh").rename(work / "pkg" / "go.sh")
    replace_line(work / "pkg" / "go.sh")


def retarget_link(work: Path) -> None:
    (work / "pkg" / "link").unlink()
    (work / "pkg" / "link").symlink_to("../tests")


def change_binary(work: Path) -> None:
    replace_line(work / "pkg" / "data.bin", b"\x01\x02", b"\x02\x01")


def add_paths(work: Path) -> None:
    for path in PATHS:
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_text(f"{path}\n")


EDITS: dict[str, Callable[[Path], object]] = {
    "mode and content": chmod_and_edit,
    "mode": lambda work: (work / "pkg" / "a.py").chmod(0o755),
    "rename of an executable": rename_executable,
    "link": retarget_link,
    "new link": lambda work: (work / "pkg" / "new").symlink_to("a.py"),
    "changed binary": change_binary,
    "deleted binary": lambda work: (work / "pkg" / "data.bin").unlink(),
    "CRLF content": lambda work: replace_line(work / "pkg" / "crlf.txt"),
    "no final newline": lambda work: replace_line(work / "pkg" / "a.py", b"l30\n", b"last"),
    "emptied": lambda work: (work / "pkg" / "a.py").write_text(""),
    "paths": add_paths,
}


def commit(work: Path, message: str = "change one thing") -> str:
    """Commit everything and return the tree."""
    run(work, "git", "add", "-A", "-f")
    run(work, "git", "commit", "-qm", message)
    return run(work, "git", "rev-parse", "HEAD^{tree}")


def format_patch(work: Path, out: Path, *options: str) -> Path:
    """Write the last commit as a patch and return to the one before."""
    command = ["git", "format-patch", "-1", "--stdout", *options]
    done = subprocess.run(command, cwd=work, env=ENVIRONMENT, capture_output=True, check=True)
    out.write_bytes(done.stdout)
    run(work, "git", "reset", "-q", "--hard", "HEAD^")
    return out


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("release", ["folder", "commit"])
def test_every_kind_of_change_survives_import_and_export(
    work: Path, tmp_path: Path, edit: str, release: str
) -> None:
    EDITS[edit](work)
    wanted = commit(work)
    patch = format_patch(work, tmp_path / "x.patch", "-M")
    files = SourceTree(work) if release == "folder" else CommitFiles(work)
    import_patches([patch], files).write(tmp_path / "series", "pkg", "1")
    (imported,) = (tmp_path / "series").glob("*.patch")
    run(work, "git", "apply", "--index", str(imported))
    assert run(work, "git", "write-tree") == wanted
    run(work, "git", "reset", "-q", "--hard")
    series = series_files.read(tmp_path / "series")
    if release == "folder" and "binary" not in edit:
        export_series(series, "quilt", tmp_path / "quilt")
        quilt_push(work, tmp_path / "quilt")
        shutil.rmtree(work / ".pc", ignore_errors=True)
        run(work, "git", "add", "-A", "-f")
        assert run(work, "git", "write-tree") == wanted
        run(work, "git", "reset", "-q", "--hard")
    export_series(series, "mbox", tmp_path / "series.mbox")
    run(work, "git", "am", "-q", "--keep-cr", str(tmp_path / "series.mbox"))
    assert run(work, "git", "rev-parse", "HEAD^{tree}") == wanted
    run(work, "git", "reset", "-q", "--hard", "HEAD^")
    import_patches([tmp_path / "series.mbox"], files).write(tmp_path / "back", "pkg", "1")
    assert (tmp_path / "back" / imported.name).read_bytes() == imported.read_bytes()


def in_crlf(mail: bytes) -> bytes:
    return mail.replace(b"\n", b"\r\n")


def quoted(mail: bytes) -> bytes:
    head, _, body = mail.partition(b"\n\n")
    kept = [line for line in head.split(b"\n") if not line.startswith((b"MIME-", b"Content-"))]
    kept.append(b"Content-Transfer-Encoding: quoted-printable")
    return b"\n".join(kept) + b"\n\n" + quopri.encodestring(body)


@pytest.mark.parametrize("form", [in_crlf, quoted, bytes])
def test_mails_are_taken_as_git_am_takes_them(
    work: Path, tmp_path: Path, form: Callable[[bytes], bytes]
) -> None:
    replace_line(work / "pkg" / "a.py", b"l6", "sechs ü".encode())
    wanted = commit(work, "[Fix] Write six\n\nIt is longer.\n\nForwarded: no")
    mail = format_patch(work, tmp_path / "x.eml")
    mail.write_bytes(form(mail.read_bytes()))
    import_patches([mail], SourceTree(work)).write(tmp_path / "series", "pkg", "1")
    text = (tmp_path / "series" / "0001-x.patch").read_text()
    assert text.startswith(
        "Description: [Fix] Write six\n It is longer.\nForwarded: no\nAuthor: test <test@localhost>\n"
        "Date: Thu, 1 Jan 2026 00:00:00 +0000\n---\ndiff --git"
    )
    run(work, "git", "am", "-q", str(mail))
    assert run(work, "git", "rev-parse", "HEAD^{tree}") == wanted
    run(work, "git", "reset", "-q", "--hard", "HEAD^")
    run(work, "git", "apply", "--index", str(tmp_path / "series" / "0001-x.patch"))
    assert run(work, "git", "write-tree") == wanted


def test_author_of_the_change_and_unencoded_names(work: Path, tmp_path: Path) -> None:
    (tmp_path / "x.patch").write_text(
        "From: Sender <s@x.org>\nSubject: Re: [PATCH v2 1/2] [Bug] Ä\n line\nMessage-ID: <1@x.org>\n\n"
        "From: Ö Author <a@x.org>\n\nWhy.\n---\n" + diff(tmp_path, "pkg/a.py").read_text()
    )
    (one,) = import_patches([tmp_path / "x.patch"], SourceTree(work)).patches
    assert one.header.decode() == (
        "Description: [Bug] Ä line\n Why.\nAuthor: Ö Author <a@x.org>\nMessage-ID: <1@x.org>\n"
    )


def test_folder_of_mails_with_a_cover_letter(work: Path, tmp_path: Path) -> None:
    for number in (6, 7):
        replace_line(work / "pkg" / "a.py", b"l%d\n" % number, b"changed\n")
        commit(work)
    run(work, "git", "format-patch", "-q", "--cover-letter", "-o", str(tmp_path / "mails"), "HEAD~2")
    run(work, "git", "reset", "-q", "--hard", "HEAD~2")
    found = import_patches([tmp_path / "mails"], SourceTree(work))
    assert [one.id for one in found.patches] == ["0001-change-one-thing", "0002-change-one-thing"]
    assert found.left_out == [(f"{tmp_path}/mails/0000-cover-letter.patch", "cover letter")]


def test_a_diff_in_the_message_is_not_applied(work: Path, tmp_path: Path) -> None:
    replace_line(work / "pkg" / "a.py")
    other = diff(tmp_path, "tests/test_a.py").read_text()
    wanted = commit(work, "Fix a\n\nThis was wrong:\n\n" + textwrap.indent(other, "  "))
    patch = format_patch(work, tmp_path / "x.patch")
    import_patches([patch], SourceTree(work)).write(tmp_path / "series", "pkg", "1")
    quilt_push(work, tmp_path / "series")  # GNU patch applies indented diffs
    shutil.rmtree(work / ".pc", ignore_errors=True)
    run(work, "git", "add", "-A")
    assert run(work, "git", "write-tree") == wanted


@pytest.mark.parametrize("option", ["--attach", "--inline"])
def test_patches_may_be_attached(work: Path, tmp_path: Path, option: str) -> None:
    replace_line(work / "pkg" / "a.py")
    commit(work, "Fix a\n\nWhy.")
    (one,) = import_patches([format_patch(work, tmp_path / "x", option)], SourceTree(work)).patches
    assert list(one.changes) == ["pkg/a.py"]
    assert one.header.startswith(b"Description: Fix a\n Why.\nAuthor: test <test@localhost>\n")


def test_a_file_that_one_commit_adds_and_the_next_renames(work: Path, tmp_path: Path) -> None:
    (work / "pkg" / "new.py").write_text("content\n")
    commit(work)
    (work / "pkg" / "new.py").rename(work / "pkg" / "newer.py")
    commit(work)
    (tmp_path / "x.mbox").write_text(run(work, "git", "format-patch", "--stdout", "-2"))
    run(work, "git", "reset", "-q", "--hard", "HEAD~2")
    found = import_patches([tmp_path / "x.mbox"], SourceTree(work))
    assert [list(one.changes) for one in found.patches] == [["pkg/new.py"], ["pkg/new.py", "pkg/newer.py"]]


def diff(tmp_path: Path, *paths: str, hunk: str = HUNK) -> Path:
    patch = tmp_path / "x.patch"
    patch.write_text("".join(f"--- a/{path}\n+++ b/{path}\n{hunk}" for path in paths), newline="")
    return patch


def test_a_file_may_occur_twice(work: Path, tmp_path: Path) -> None:
    patch = diff(tmp_path, "pkg/a.py")
    second = HUNK.replace("-3,7 +3,7", "-23,7 +23,7").replace("l", "l2").replace("six", "26")
    patch.write_text(patch.read_text() + f"--- a/pkg/a.py\n+++ b/pkg/a.py\n{second}")
    (one,) = import_patches([patch], SourceTree(work)).patches
    after = one.changes["pkg/a.py"][1]
    assert after
    assert after.content.count(b"six\n") == after.content.count(b"26\n") == 1


@pytest.mark.parametrize(
    "rules",
    [
        ["--exclude=tests/*"],
        ["--include=pkg/*"],
        ["--include=pkg/a*", "--exclude=pkg/*", "--include=*"],
        ["--exclude=pkg/*", "--include=pkg/a*"],
        ["--include=tests", "--include=pkg/[a-c].py"],
        ["--exclude=pkg/\\[x].py", "--exclude=*.sh", "--exclude=*/[^x]*st_*"],
    ],
)
def test_include_and_exclude_choose_as_git_apply_does(work: Path, tmp_path: Path, rules: list[str]) -> None:
    (work / "pkg" / "[x].py").write_bytes((work / "pkg" / "a.py").read_bytes())
    paths = ["pkg/a.py", "pkg/run.sh", "pkg/[x].py", "tests/test_a.py"]
    patch = diff(tmp_path, *paths)
    numbers = run(work, "git", "apply", "--numstat", "-z", *rules, str(patch)).split("\0")[:-1]
    wanted = [line.split("\t")[2] for line in numbers]
    parsed = [PathRule(rule.startswith("--include"), rule.partition("=")[2]) for rule in rules]
    if not wanted:
        with pytest.raises(UsageError, match="nothing is left"):
            import_patches([patch], SourceTree(work), rules=parsed)
        return
    found = import_patches([patch], SourceTree(work), rules=parsed)
    assert sorted(found.patches[0].changes) == sorted(wanted)
    assert sorted(path for _, path in found.left_out) == sorted({*paths} - {*wanted})


def test_what_cannot_be_applied_is_an_error_unless_excluded(work: Path, tmp_path: Path) -> None:
    patch = diff(tmp_path, "pkg/a.py")
    ordinary = patch.read_text()
    patch.write_text(
        "diff --git a/docs/x.png b/docs/x.png\nindex 1234567..89abcde 100644\n"
        "Binary files a/docs/x.png and b/docs/x.png differ\n" + ordinary
    )
    assert "binary-without-data" in message(work, patch)[0]
    found = import_patches([patch], SourceTree(work), rules=[PathRule(False, "docs/*")])
    assert found.left_out == [(str(patch), "docs/x.png")]
    # A file that only this line names is not the excluded one above it.
    patch.write_text(ordinary + "Binary files a/x.png and b/x.png differ\n")
    with pytest.raises(UsageError, match="binary-without-data"):
        import_patches([patch], SourceTree(work), rules=[PathRule(False, "pkg/a.py")])
    combined = (
        "diff --cc pkg/run.sh\nindex 1,2..3\n--- a/pkg/run.sh\n+++ b/pkg/run.sh\n"
        "@@@ -1,2 -1,2 +1,2 @@@\n- l1\n -l1\n++x\n  l2\n"
    )
    context = (
        "*** a/pkg/run.sh\n--- b/pkg/run.sh\n***************\n*** 1,2 ****\n! l1\n  l2\n"
        "--- 1,2 ----\n! x\n  l2\n"
    )
    for rule, text in (("combined-diff", combined), ("context-diff", context)):
        for order in (text + ordinary, ordinary + text):
            patch.write_text(order)
            with pytest.raises(UsageError, match=rule):
                import_patches([patch], SourceTree(work), rules=[PathRule(False, "pkg/run*")])


def message(work: Path, patch: Path, strip: int | None = None) -> tuple[str, str]:
    with pytest.raises(UsageError) as refused:
        import_patches([patch], SourceTree(work), strip)
    return refused.value.message.partition(": ")[2], refused.value.hint or ""


def test_reasons_why_a_patch_does_not_fit(work: Path, tmp_path: Path) -> None:
    crlf = HUNK.replace("\n", "\r\n")
    text, hint = message(work, diff(tmp_path, "pkg/a.py", hunk=crlf))
    assert text.startswith(f"does not apply to {work}: line 3: the hunk does not fit")
    assert "its lines end in CRLF, those of the file in LF" in text
    assert "lint --fix" in hint
    text, _ = message(work, diff(tmp_path, "pkg/crlf.txt"))
    assert "its lines end in LF, those of the file in CRLF" in text
    assert "-p 2" in message(work, diff(tmp_path, "src/pkg/a.py"))[0]
    text, hint = message(work, diff(tmp_path, "docs/index.md"))
    assert text.endswith(f"{work} has no docs/index.md")
    assert "--exclude" in hint
    replace_line(work / "pkg" / "a.py")
    assert message(work, diff(tmp_path, "pkg/a.py"))[0].endswith("pkg/a.py has this change already")


@pytest.mark.parametrize(
    ("prefix", "strip"), [("", 0), ("a/", 1), ("a/src/", 2), ("home/user/pkg/", 3), ("", None)]
)
def test_strip_level(work: Path, tmp_path: Path, prefix: str, strip: int | None) -> None:
    names = f"--- {prefix}setup.py.orig\t2026-01-01 00:00:00\n+++ {prefix}setup.py\n"
    (work / "setup.py").write_bytes((work / "pkg" / "a.py").read_bytes())
    (tmp_path / "x.patch").write_text(names + HUNK)
    found = import_patches([tmp_path / "x.patch"], SourceTree(work), strip)
    assert list(found.patches[0].changes) == ["setup.py"]


def test_a_diff_without_effect_is_an_error(work: Path, tmp_path: Path) -> None:
    patch = diff(tmp_path, "pkg/a.py")
    mode = "diff --git a/pkg/run.sh b/pkg/run.sh\nold mode 100644\nnew mode 100755\n"
    patch.write_text(patch.read_text() + mode)
    assert message(work, patch)[0] == f"changes nothing in pkg/run.sh of {work}"


def test_line_numbers_become_those_of_the_release(work: Path, tmp_path: Path) -> None:
    (work / "pkg" / "a.py").write_bytes(b"new\n" * 3 + (work / "pkg" / "a.py").read_bytes())
    found: Imported = import_patches([diff(tmp_path, "pkg/a.py")], SourceTree(work))
    found.write(tmp_path / "series", "pkg", commit="0" * 40)
    assert found.patches[0].offsets == 1
    assert b"@@ -6,7 +6,7 @@" in (tmp_path / "series" / "0001-x.patch").read_bytes()
    assert series_files.read(tmp_path / "series").commit == "0" * 40
