from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from vime_runtime.spec.errors import CheckFailed, UsageError

from vimectl.patches import content, series
from vimectl.patches.series import Series
from vimectl.patches.target import PatchTarget, find_at


def test_stages_lead_from_the_release_through_every_patch(target: PatchTarget, toy_series: Series) -> None:
    released = content.released(target, toy_series, "toy/both.py")
    stages = content.stages(toy_series, "toy/both.py", released)
    assert stages == [b"a\nb\nc\nd\n", b"a\nB\nc\nd\n", b"a\nB\nc\nD\n"]
    for stage in stages:
        assert stage
        (target.location / "toy/both.py").write_bytes(stage)
        assert content.released(target, toy_series, "toy/both.py") == released


def test_a_work_tree_s_own_history_has_the_release_of_an_edited_file(
    location: Path, toy_series: Series
) -> None:
    commit = ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "-m", "release"]
    for command in (["init", "-q"], ["add", "toy"], commit):
        subprocess.run(["git", "-C", location, *command], check=True)
    (location / "toy_cpu-1.0.dist-info" / "RECORD").unlink()
    (location / "toy/both.py").write_bytes(b"edited\n")
    checkout = find_at(location, "toy", "toy", version="1.0")
    assert checkout
    assert checkout.kind == "git"
    assert content.released(checkout, toy_series, "toy/both.py") == b"a\nb\nc\nd\n"
    with pytest.raises(CheckFailed, match=r"no copy of toy/both\.py as released"):
        content.kept(checkout, "toy/both.py", "0" * 40)


def test_without_git_a_release_that_only_history_has_is_not_found(
    target: PatchTarget, toy_series: Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    (target.location / "toy/both.py").write_bytes(b"edited\n")
    monkeypatch.setitem(sys.modules, "git", None)  # as GitPython is where there is no git
    with pytest.raises(CheckFailed, match=r"no copy of toy/both\.py as released"):
        content.released(target, toy_series, "toy/both.py")


def test_a_damaged_patch_is_found_before_anything_is_written(
    target: PatchTarget, toy_series: Series, tmp_path: Path
) -> None:
    for path in toy_series.directory.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes().replace(b"+B\n", b"+X\n"))
    with pytest.raises(UsageError, match=r"toy/both\.py does not become"):
        content.stages(series.read(tmp_path), "toy/both.py", b"a\nb\nc\nd\n")
