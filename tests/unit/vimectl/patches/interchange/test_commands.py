from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.patches.git_and_quilt import run
from harness.patches.toy_packages import unpack
from vimectl.cli import run_cli
from vimectl.patches import series as series_files
from vimectl.patches.series import Series

PULL_REQUEST = "".join(
    f"--- a/{path}\n+++ b/{path}\n@@ -1,3 +1,3 @@\n-l1\n+one\n l2\n l3\n"
    for path in ("pkg/a.py", "tests/test_a.py", "pkg/run.sh")
)


def test_export_and_import(toy_series: Series, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release, box, back = unpack(tmp_path / "release"), tmp_path / "toy.mbox", tmp_path / "back"
    export = ["patch", "export", "--series", str(toy_series.directory), "--format", "mbox", "--out", str(box)]
    assert run_cli(export) == 0
    assert "git am --keep-cr" in capsys.readouterr().out
    assert run_cli(export) == 2
    options = ["--package", "toy", "--version", "1.0", "--against", str(release), "--out", str(back)]
    capsys.readouterr()
    assert run_cli(["patch", "import", str(box), *options, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["id"] for one in document["patches"]] == ["0001-first", "0002-second"]
    assert document["patches"][0]["files"][0].keys() == {"path", "before", "after"}
    assert series_files.read(back).chains == toy_series.chains


def test_import_for_a_commit(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.patch").write_text(PULL_REQUEST)
    commit = run(work, "git", "rev-parse", "HEAD").strip()
    (work / "pkg" / "a.py").write_text("edited since\n")
    monkeypatch.chdir(work)
    command = ["patch", "import", "../x.patch", "--package", "pkg", "--out", "../series", "--commit"]
    assert run_cli([*command, "nothing"]) == 2
    assert run_cli([*command, "HEAD"]) == 0
    series = series_files.read(tmp_path / "series")
    assert (series.commit, series.version, list(series.chains)) == (
        commit,
        "",
        ["pkg/a.py", "pkg/run.sh", "tests/test_a.py"],
    )


@pytest.mark.parametrize(
    ("rules", "left_out"),
    [
        (["--include", "pkg/*", "--exclude", "*.sh"], ["tests/test_a.py"]),
        (["--exclude=*.sh", "--include=pkg/*", "--exclude=*"], ["pkg/run.sh", "tests/test_a.py"]),
    ],
)
def test_first_rule_counts_and_what_is_left_out_is_listed(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], rules: list[str], left_out: list[str]
) -> None:
    (tmp_path / "x.patch").write_text(PULL_REQUEST)
    options = ["--package", "pkg", "--version", "1", "--against", str(work), *rules, "--json"]
    out = str(tmp_path / "series")
    assert run_cli(["patch", "import", str(tmp_path / "x.patch"), *options, "--out", out]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["path"] for one in document["left_out"]] == left_out


def test_options_that_contradict_each_other(tmp_path: Path) -> None:
    (tmp_path / "x.patch").write_text(PULL_REQUEST)
    (tmp_path / "series.conf").write_text("/x/vllm|x.patch|x.patch\n")
    command = ["patch", "import", str(tmp_path / "x.patch"), "--out", str(tmp_path / "out")]
    assert run_cli([*command, "--package", "pkg"]) == 2
    assert run_cli([*command, "--package", "pkg", "--version", "1", "--commit", "HEAD"]) == 2
    assert run_cli([*command, "--version", "1"]) == 2
    conf = ["patch", "import", str(tmp_path / "series.conf"), "--out", str(tmp_path / "out")]
    assert run_cli([*conf, "--version", "1"]) == 2
