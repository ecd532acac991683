from __future__ import annotations

from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError

from harness.patches.hostile_series import HEADER, create, diff, link, unlink
from vimectl.patches import series
from vimectl.patches.interchange.importers import import_patches
from vimectl.patches.lint.linter import lint
from vimectl.patches.release_files import SourceTree

OUT = "symlink-outside"
BEHIND = "symlink-through"
UP = link("toy/b/c/L", "../..")  # leads to toy
CASES = {
    "through a link of the same patch": ([UP + link("toy/m", "b/c/L/../..")], OUT),
    "through a link of another patch": ([UP, link("toy/m", "b/c/L/../../x")], OUT),
    "an earlier link by a later one": ([link("toy/m", "n/../x"), link("toy/n", "b/c")], ""),
    "an earlier link led out later": ([link("toy/m", "b/n/../x"), link("toy/b/n", "../..")], OUT),
    "a link that is changed": ([link("toy/n", "b"), diff("toy/n", b"b", b"../..", "120000")], OUT),
    "a file behind a link": ([link("toy/n", "b"), create("toy/n/x")], BEHIND),
    "a file behind a link of other case": ([link("toy/N", "b"), create("toy/n/x")], BEHIND),
    "a file where a link was": ([link("toy/n", "b"), unlink("toy/n", "b") + create("toy/n/x")], BEHIND),
    "a link where a folder was": (
        [create("toy/n/x"), diff("toy/n/x", b"evil\n", None), link("toy/n", "b")],
        BEHIND,
    ),
    "a circle": ([link("toy/n", "o") + link("toy/o", "n")], OUT),
    "more links than any series": ([b"".join(link(f"toy/{n}", "b") for n in range(300))], OUT),
    "links that stay inside": ([link("toy/n", "b/c"), link("toy/b/c", "../d"), link("toy/e", "n/../x")], ""),
}


@pytest.mark.parametrize("name", CASES)
def test_links_are_followed_through_all_patches(name: str, tmp_path: Path) -> None:
    patches, rule = CASES[name]
    folder = tmp_path / "series"
    folder.mkdir()
    names = [f"{number:04}-p.patch" for number in range(len(patches))]
    for file, text in zip(names, patches, strict=True):
        (folder / file).write_bytes(HEADER + text)
    (folder / "series").write_text("".join(f"{file}\n" for file in names))
    (tmp_path / "toy").mkdir()
    found = {one.rule for report in lint([folder]) for one in report.findings if one.severity == "error"}
    assert found == ({rule} if rule else set())
    if not rule:
        series.read(folder)
        import_patches([folder], SourceTree(tmp_path))
        return
    with pytest.raises(UsageError, match=rule):
        series.read(folder)
    with pytest.raises(UsageError, match=rule):
        import_patches([folder], SourceTree(tmp_path))


def test_links_of_the_release_are_followed(tmp_path: Path) -> None:
    (tmp_path / "toy" / "a" / "b").mkdir(parents=True)
    (tmp_path / "toy" / "a" / "b" / "near").symlink_to("../..")
    moved = b"diff --git a/toy/a/b/near b/toy/near\nrename from toy/a/b/near\nrename to toy/near\n"
    for text in (link("toy/m", "a/b/near/../x/../.."), moved):
        (tmp_path / "one.patch").write_bytes(HEADER + text)
        (report,) = lint([tmp_path / "one.patch"], SourceTree(tmp_path))
        assert [one.rule for one in report.findings if one.severity == "error"] == [OUT]
