from __future__ import annotations

import stat
from pathlib import Path

import pytest
from vime_runtime.spec.errors import UsageError

from harness.patches.git_and_quilt import committed, run
from vimectl.patches.git_tree import CommitFiles


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work" / "python" / "pkg").mkdir(parents=True)
    (tmp_path / "work" / "python" / "pkg" / "ä b.py").write_bytes(b"one\r\n")
    (tmp_path / "work" / "python" / "run.sh").write_text("#!/bin/sh\n")
    (tmp_path / "work" / "python" / "run.sh").chmod(0o755)
    (tmp_path / "work" / "link").symlink_to("python/run.sh")
    return committed(tmp_path / "work")


def test_files_are_those_of_the_commit(work: Path) -> None:
    (work / "python" / "pkg" / "ä b.py").write_text("edited\n")
    files = CommitFiles(work)
    assert files.commit == run(work, "git", "rev-parse", "HEAD").strip()
    assert files.paths() == ["link", "python/pkg/ä b.py", "python/run.sh"]
    assert files.read("python/pkg/ä b.py") == b"one\r\n"
    assert files.read("python/pkg") is None
    assert (files.read("link"), stat.S_ISLNK(files.mode("link"))) == (b"python/run.sh", True)
    assert files.mode("python/run.sh") == 0o100755


def test_directory_in_a_work_tree_is_the_root(work: Path) -> None:
    assert CommitFiles(work / "python", "HEAD").paths() == ["pkg/ä b.py", "run.sh"]


def test_a_git_hook_changes_nothing(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert CommitFiles(work).paths()


@pytest.mark.parametrize("revision", ["nothing", "--all"])
def test_unknown_commits_and_no_work_tree_are_errors(work: Path, tmp_path: Path, revision: str) -> None:
    with pytest.raises(UsageError, match="work: Needed a single revision"):
        CommitFiles(work, revision)
    with pytest.raises(UsageError, match="not a git repository"):
        CommitFiles(tmp_path)
