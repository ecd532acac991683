from __future__ import annotations

import json
import quopri
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError

from harness.patches.git_and_quilt import committed, quilt_push, run
from harness.patches.toy_packages import unpack
from vimectl.cli import run_cli
from vimectl.patches import series as series_files
from vimectl.patches.blobs import file_id_at
from vimectl.patches.interchange.exporters import export_series
from vimectl.patches.interchange.importers import import_series
from vimectl.patches.lint.linter import lint, patches_in
from vimectl.patches.release_files import SourceTree
from vimectl.patches.series import Series


def last(series: Series) -> dict[str, str | None]:
    return {path: chain[-1] for path, chain in series.chains.items()}


def found(directory: Path, series: Series) -> dict[str, str | None]:
    return {path: file_id_at(directory / path).blob for path in series.chains}


def test_quilt_and_git_am_apply_exports(toy_series: Series, tmp_path: Path) -> None:
    release = committed(unpack(tmp_path / "release"))
    export_series(toy_series, "quilt", tmp_path / "patches")
    assert (tmp_path / "patches" / "series").read_text() == "0001-first.patch\n0002-second.patch\n"
    quilt_push(release, tmp_path / "patches")
    assert found(release, toy_series) == last(toy_series)
    run(release, "git", "reset", "-q", "--hard")
    run(release, "git", "clean", "-qfd")
    export_series(toy_series, "mbox", tmp_path / "toy.mbox")
    run(release, "git", "am", "-q", "--keep-cr", str(tmp_path / "toy.mbox"))
    assert found(release, toy_series) == last(toy_series)
    assert run(release, "git", "log", "--format=%s %an", "-2") == "toy vimectl\ntoy vimectl\n"


@pytest.mark.parametrize("form", ["quilt", "mbox"])
def test_export_and_import_round_trip(toy_series: Series, tmp_path: Path, form: str) -> None:
    header = (
        "Description: Do something, in two lines\n Why: because.\n .\n  --- with a line of dashes\n"
        "Origin: vendor, a user\n over two lines\nForwarded: not-needed\nLast-Update: 2026-11-23\n"
    )
    directory = tmp_path / "series"
    shutil.copytree(toy_series.directory, directory)
    for patch in toy_series.patch:
        path = directory / f"{patch.id}.patch"
        path.write_bytes(header.encode() + b"---\n" + path.read_bytes().partition(b"---\n")[2])
    export_series(series_files.read(directory), form, tmp_path / "out")  # type: ignore[arg-type]
    sources = SourceTree(unpack(tmp_path / "release"))
    import_series(tmp_path / "out", "toy", "1.0", sources, tmp_path / "back")
    back = series_files.read(tmp_path / "back")
    assert back.chains == toy_series.chains
    assert [patch.id for patch in back.patch] == [patch.id for patch in toy_series.patch]
    for patch in back.patch:
        text = (tmp_path / "back" / f"{patch.id}.patch").read_bytes()
        assert text == (directory / f"{patch.id}.patch").read_bytes()


def history(tmp_path: Path) -> tuple[Path, dict[str, str | None]]:
    """Return a repository with two commits on the release, and the blob ids of the changed files."""
    work = committed(unpack(tmp_path / "work"))
    (work / "toy" / "both.py").write_bytes(b"a\nB\nc\nd\n")
    run(work, "git", "commit", "-qam", "Write B large\n\nIt is more visible.\n\nForwarded: no")
    run(work, "git", "mv", "toy/crlf.py", "toy/moved.py")
    (work / "toy" / "fresh.py").write_text("x = 'ä'\n", encoding="utf-8")
    run(work, "git", "add", "-A")
    run(work, "git", "-c", "user.name=Ä B", "commit", "-qm", "Move one, add ö")
    paths = ["toy/both.py", "toy/crlf.py", "toy/moved.py", "toy/fresh.py"]
    return work, {path: file_id_at(work / path).blob for path in paths}


@pytest.mark.parametrize("form", ["folder", "mailbox", "diff", "encoded"])
def test_import_of_git_output(tmp_path: Path, form: str) -> None:
    work, expected = history(tmp_path)
    given = tmp_path / "given"
    if form == "folder":
        run(work, "git", "format-patch", "-q", "-o", str(given), "HEAD~2")
    elif form == "mailbox":
        given.write_text(run(work, "git", "format-patch", "--stdout", "HEAD~2"), newline="")
    elif form == "diff":
        given.write_text(run(work, "git", "diff", "HEAD~2"), newline="")
    else:
        done = subprocess.run(["git", "format-patch", "--stdout", "HEAD~2"], cwd=work, capture_output=True)
        given.write_bytes(quoted_printable(done.stdout))
    sources = SourceTree(unpack(tmp_path / "release"))
    taken = import_series(given, "toy", "1.0", sources, tmp_path / "series")
    series = series_files.read(tmp_path / "series")
    assert last(series) == expected
    assert all(report.ok for report in (lint(p, sources) for p in patches_in([tmp_path / "series"])))
    if form == "folder":
        assert [one.id for one in taken] == ["0001-write-b-large", "0002-move-one-add"]
        first = (tmp_path / "series" / "0001-write-b-large.patch").read_text()
        head = r"Description: Write B large\n It is more visible\.\nForwarded: no\n"
        assert re.match(rf"{head}Author: (\w+) <\1@\w+>\nLast-Update: 20", first)


def quoted_printable(mailbox: bytes) -> bytes:
    """Encode emails as some programs send them."""
    mails = []
    for mail in mailbox.split(b"\nFrom "):
        head, _, body = mail.partition(b"\n\n")
        kept = [line for line in head.split(b"\n") if not line.startswith((b"MIME-", b"Content-"))]
        kept.append(b"Content-Transfer-Encoding: quoted-printable")
        mails.append(b"\n".join(kept) + b"\n\n" + quopri.encodestring(body))
    return b"\nFrom ".join(mails)


def test_import_corrects_line_numbers(tmp_path: Path) -> None:
    release = unpack(tmp_path / "release")
    (release / "toy" / "both.py").write_bytes(b"new\n" * 3 + b"a\nb\nc\nd\ne\n")
    diff = b"--- old/toy/both.py\n+++ new/toy/both.py\n@@ -2,3 +2,3 @@\n b\n-c\n+C\n d\n"
    (tmp_path / "x.diff").write_bytes(diff)
    (one,) = import_series(tmp_path / "x.diff", "toy", "1.0", SourceTree(release), tmp_path / "series")
    assert (one.id, one.offsets) == ("0001-x", 1)
    assert b"@@ -3,6 +3,6 @@" in (tmp_path / "series" / "0001-x.patch").read_bytes()


def test_failed_import_writes_nothing(toy_series: Series, tmp_path: Path) -> None:
    release = unpack(tmp_path / "release")
    (release / "toy" / "both.py").write_bytes(b"something else\n")
    export_series(toy_series, "mbox", tmp_path / "toy.mbox")
    with pytest.raises(
        UsageError, match=r"toy\.mbox, message 1: does not apply to .*/release: line \d+: the hunk"
    ):
        import_series(tmp_path / "toy.mbox", "toy", "1.0", SourceTree(release), tmp_path / "series")
    assert not (tmp_path / "series").exists()


@pytest.mark.parametrize(
    ("series", "message"),
    [
        ("x.patch -p0\n", "only -p1"),
        ("../outside.patch\n", "outside of the series"),
        ("gone.patch\n", "cannot be read"),
        ("# nothing\n", "no patches here"),
    ],
)
def test_unsupported_quilt_series_is_refused(
    toy_series: Series, tmp_path: Path, series: str, message: str
) -> None:
    (tmp_path / "quilt").mkdir()
    (tmp_path / "quilt" / "series").write_text(series)
    (tmp_path / "quilt" / "x.patch").touch()
    release = SourceTree(unpack(tmp_path / "release"))
    with pytest.raises(UsageError, match=message):
        import_series(tmp_path / "quilt", "toy", "1.0", release, tmp_path / "out")


def test_export_and_import_commands(
    toy_series: Series, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release, box, back = unpack(tmp_path / "release"), tmp_path / "toy.mbox", tmp_path / "back"
    chosen = ["toy", "--version", "1.0", "--series", str(toy_series.directory)]
    assert run_cli(["patch", "export", *chosen, "--format", "mbox", "--out", str(box)]) == 0
    assert "git am --keep-cr" in capsys.readouterr().out
    assert run_cli(["patch", "export", *chosen, "--format", "mbox", "--out", str(box)]) == 2
    release_options = ["--package", "toy", "--version", "1.0", "--against", str(release)]
    capsys.readouterr()
    assert run_cli(["patch", "import", str(box), *release_options, "--out", str(back), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["id"] for one in document["patches"]] == ["0001-first", "0002-second"]
    assert document["patches"][0]["files"][0].keys() == {"path", "before", "after"}
