"""Lint against releases named on the command line, from a local index."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.patches.index_server import Index, make_sdist, make_wheel
from vimectl.cli import run_cli

PATCH = """\
--- a/toy/worker.py
+++ b/toy/worker.py
@@ -1,3 +1,3 @@
 a
-b
+B
 c
"""


@pytest.fixture
def patch(index: Index, tmp_path: Path) -> Path:
    index.files = {"toy-1.0-py3-none-any.whl": make_wheel(), "toy-1.1.tar.gz": make_sdist("toy-1.1")}
    path = tmp_path / "toy.patch"
    path.write_text(PATCH)
    return path


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_lint_against_a_release(patch: Path, version: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["patch", "lint", str(patch), "--against", f"toy=={version}", "--json"]) == 0
    (file,) = json.loads(capsys.readouterr().out)["files"]
    assert [hunk["result"] for hunk in file["hunks"]] == ["exact"]


def test_package_without_a_version_is_refused(patch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["patch", "lint", str(patch), "--against", "toy", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert "toy: no such file or directory" in error["message"]
    assert "PACKAGE==VERSION" in error["hint"]
