"""Lint, export and re-import every shipped series on its release; git am and quilt apply the exports."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from harness.patches.git_and_quilt import committed, quilt_push, run
from harness.patches.stored_content import content_at
from vimectl.patches import release_finder, series
from vimectl.patches.blobs import id_of
from vimectl.patches.interchange.exporters import export_series
from vimectl.patches.interchange.importers import import_patches
from vimectl.patches.lint.linter import lint
from vimectl.patches.release_files import SourceTree, open_release
from vimectl.patches.series import Series

ALL = [(package, version) for package, versions in series.known().items() for version in versions]

pytestmark = pytest.mark.needs("network")


def released(one: Series, directory: Path) -> Path:
    """Commit the released files that the series touches to a repository."""
    sources = release_finder.find(one.package, one.version)
    contents = {path: sources.read(path) for path in one.chains}
    for path, content in contents.items():
        if content is not None:
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_bytes(content)
    return committed(directory)


@pytest.mark.parametrize(("package", "version"), ALL)
def test_shipped_series_is_exported_and_imported(package: str, version: str, tmp_path: Path) -> None:
    one = series.load(package, version)
    if not one.patches:
        pytest.skip("the series has no patches")
    tree = released(one, tmp_path / "tree")
    for report in lint([one.directory], SourceTree(tree)):
        assert [finding for finding in report.findings if finding.severity == "error"] == []
        assert {hunk.result for hunk in report.hunks} == {"exact"}
    wanted = {path: chain[-1] for path, chain in one.chains.items()}

    export_series(one, "mbox", tmp_path / "series.mbox")
    export_series(one, "quilt", tmp_path / "patches")
    imported = import_patches([tmp_path / "series.mbox"], SourceTree(tree))
    imported.write(tmp_path / "back", package, version, module=one.module)
    assert series.read(tmp_path / "back").chains == one.chains

    run(tree, "git", "am", "-q", "--keep-cr", str(tmp_path / "series.mbox"))
    assert {path: id_of(content_at(tree / path)) for path in wanted} == wanted
    run(tree, "git", "reset", "-q", "--hard", f"HEAD~{len(one.patches)}")
    quilt_push(tree, tmp_path / "patches")
    assert {path: id_of(content_at(tree / path)) for path in wanted} == wanted


@pytest.mark.parametrize(
    ("release", "ok", "results"),
    [
        ("vllm-ascend==0.23.0", True, {"exact": 5}),
        ("vllm-ascend==0.30.0rc2", False, {"offset": 3, "fuzz": 1, "does-not-apply": 1}),
    ],
)
def test_lint_compares_the_shipped_patch_with_a_release(
    release: str, ok: bool, results: dict[str, int]
) -> None:
    one = series.load("vllm-ascend", "0.23.0")
    (report,) = lint([one.directory / f"{one.patches[0].id}.patch"], open_release(release))
    assert (report.ok, Counter(hunk.result for hunk in report.hunks)) == (ok, results)
