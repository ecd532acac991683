from __future__ import annotations

import json
from pathlib import Path

import pytest

from vimectl.cli import run_cli


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    found = tmp_path / "runs" / "tiny-20270101T000000Z"
    found.mkdir(parents=True)
    (found / "resolved.json").write_text("{}")
    return found


def test_the_page_goes_into_the_run_directory(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["runs", "report", "last", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {"schema": "vimectl.runs.report/1", "ok": True, "path": f"{run_dir}/report.html"}
    assert (run_dir / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_the_page_goes_where_it_is_wanted(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["runs", "report", run_dir.name, "--out", "page.html"]) == 0
    assert capsys.readouterr().out == "page.html\n"
    assert Path("page.html").is_file()
    assert not (run_dir / "report.html").exists()


def test_a_place_that_cannot_be_written_and_a_run_that_is_not_there_are_bad_input(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["runs", "report", "last", "--out", "no/such/folder/page.html"]) == 2
    assert "the page cannot be written" in capsys.readouterr().err
    assert run_cli(["runs", "report", "tiny-20270101"]) == 2
    assert run_dir.name in capsys.readouterr().err
