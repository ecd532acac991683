from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError

from harness.patches.git_and_quilt import committed, quilt_push, run
from harness.patches.stored_content import content_at
from harness.patches.toy_packages import unpack
from vimectl.patches import series as series_files
from vimectl.patches.blobs import id_of
from vimectl.patches.interchange.exporters import export_series
from vimectl.patches.interchange.importers import import_patches
from vimectl.patches.release_files import SourceTree
from vimectl.patches.series import Series

HEADERS = [
    "Description: Do something, in two lines\n Why: because.\n .\n  --- with a line of dashes\n"
    "Origin: vendor, a user\n over two lines\nForwarded: not-needed\nLast-Update: 2026-11-23\n",
    "Description: [Fix] Ä thing\n From here.\nAuthor: Ä, B <b@x.org>\n"
    "Date: Tue, 2 Dec 2025 10:11:12 +0100\nMessage-ID: <1@x.org>\n",
    "Description: Explain a diff\n Before:\n .\n >  diff --git a/x b/x\n   --- a/x\n   +++ b/x\n"
    " >  @@ -1 +1 @@\n   -a\n   +b\n > > @@ -1 +1 @@\n --- a/x\n From me at 10:11\nAuthor: A <a@x.org>\n",
    "Description: Only a summary\nAuthor: no address\nBug-Debian: https://bugs.example/1\n",
]


def last(series: Series) -> dict[str, str | None]:
    return {path: chain[-1] for path, chain in series.chains.items()}


def found(directory: Path, series: Series) -> dict[str, str | None]:
    return {path: id_of(content_at(directory / path)) for path in series.chains}


def test_quilt_and_git_am_apply_exports(toy_series: Series, tmp_path: Path) -> None:
    release = committed(unpack(tmp_path / "release"))
    export_series(toy_series, "quilt", tmp_path / "patches")
    quilt_push(release, tmp_path / "patches")
    assert found(release, toy_series) == last(toy_series)
    run(release, "git", "reset", "-q", "--hard")
    run(release, "git", "clean", "-qfd")
    export_series(toy_series, "mbox", tmp_path / "toy.mbox")
    run(release, "git", "am", "-q", "--keep-cr", str(tmp_path / "toy.mbox"))
    assert found(release, toy_series) == last(toy_series)
    assert run(release, "git", "log", "--format=%s %an", "-2") == "toy vimectl\ntoy vimectl\n"


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("form", ["quilt", "mbox"])
def test_header_survives_export_and_import(
    toy_series: Series, tmp_path: Path, form: str, header: str
) -> None:
    directory = tmp_path / "series"
    shutil.copytree(toy_series.directory, directory)
    for patch in toy_series.patches:
        text = header.encode() + b"---\n" + patch.text.partition(b"---\n")[2]
        (directory / f"{patch.id}.patch").write_bytes(text)
    export_series(series_files.read(directory), form, tmp_path / "out")  # type: ignore[arg-type]
    imported = import_patches([tmp_path / "out"], SourceTree(unpack(tmp_path / "release")))
    imported.write(tmp_path / "back", "toy", "1.0", module="toy")
    names = sorted(path.name for path in directory.iterdir())
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == names
    for patch in toy_series.patches:
        text = (directory / f"{patch.id}.patch").read_bytes()
        assert (tmp_path / "back" / f"{patch.id}.patch").read_bytes() == text


def test_git_am_keeps_author_date_and_message(toy_series: Series, tmp_path: Path) -> None:
    directory = tmp_path / "series"
    shutil.copytree(toy_series.directory, directory)
    path = directory / f"{toy_series.patches[0].id}.patch"
    path.write_bytes(HEADERS[1].encode() + b"---\n" + path.read_bytes().partition(b"---\n")[2])
    export_series(series_files.read(directory), "mbox", tmp_path / "toy.mbox")
    release = committed(unpack(tmp_path / "release"))
    run(release, "git", "am", "-q", "--keep-cr", "--keep-non-patch", str(tmp_path / "toy.mbox"))
    log = run(release, "git", "log", "--format=%an|%ae|%aD|%B", "-1", "HEAD~1")
    assert log.strip() == "Ä, B|b@x.org|Tue, 2 Dec 2025 10:11:12 +0100|[Fix] Ä thing\n\nFrom here."


def test_quilt_refuses_binary_changes(work: Path, tmp_path: Path) -> None:
    (work / "pkg" / "data.bin").unlink()
    (tmp_path / "x.patch").write_text(run(work, "git", "diff", "--binary"))
    run(work, "git", "checkout", "-q", ".")
    import_patches([tmp_path / "x.patch"], SourceTree(work)).write(tmp_path / "series", "pkg", "1")
    with pytest.raises(UsageError, match=r"0001-x changes pkg/data\.bin, a binary file"):
        export_series(series_files.read(tmp_path / "series"), "quilt", tmp_path / "out")
