from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from vime_runtime.spec.errors import CheckFailed, UsageError

from harness.git import commit
from vimectl.patches import content, series
from vimectl.patches.patchfile.rules import parse_valid
from vimectl.patches.series import Series
from vimectl.patches.target import PatchTarget, find_at, read_file


def test_stages_go_from_the_release_through_every_patch(target: PatchTarget, toy_series: Series) -> None:
    released = content.released(target, toy_series, "toy/both.py")
    stages = content.stages(toy_series, "toy/both.py", released)
    assert stages == [b"a\nb\nc\nd\n", b"a\nB\nc\nd\n", b"a\nB\nc\nD\n"]
    for stage in stages:
        assert stage
        (target.location / "toy/both.py").write_bytes(stage)
        assert content.released(target, toy_series, "toy/both.py") == released


def test_released_content_is_read_from_git_history(location: Path, toy_series: Series) -> None:
    commit(location)
    (location / "toy_cpu-1.0.dist-info" / "RECORD").unlink()
    (location / "toy/both.py").write_bytes(b"edited\n")
    checkout = find_at(location, "toy", "toy", version="1.0")
    assert checkout.kind == "git"
    assert content.released(checkout, toy_series, "toy/both.py") == b"a\nb\nc\nd\n"
    with pytest.raises(CheckFailed, match=r"no copy of toy/both\.py as released"):
        content.kept_copy(checkout, "toy/both.py", "0" * 40)


def test_edited_file_outside_a_work_tree_has_no_released_content(
    target: PatchTarget, toy_series: Series
) -> None:
    (target.location / "toy/both.py").write_bytes(b"edited\n")
    with pytest.raises(CheckFailed, match=r"no copy of toy/both\.py as released"):
        content.released(target, toy_series, "toy/both.py")


def test_damaged_patch_is_detected(target: PatchTarget, toy_series: Series, tmp_path: Path) -> None:
    for path in toy_series.directory.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes().replace(b"+B\n", b"+X\n"))
    with pytest.raises(UsageError, match=r"toy/both\.py does not become"):
        content.stages(series.read(tmp_path), "toy/both.py", b"a\nb\nc\nd\n")


# Few different lines, so that hunks have look-alikes nearby; bytes that are not UTF-8; both line endings.
LINES = st.lists(
    st.sampled_from([b"a\n", b"b\n", b"\n", b"c\r\n", b"\xff\xe9\n", b"-x\n", b"+ y\n"]), max_size=30
)
CONTENT = st.builds(
    lambda lines, end: b"".join(lines) + end, LINES, st.sampled_from([b"", b"no newline", b"\r"])
)


def git_diff(directory: Path, old: bytes, new: bytes) -> bytes:
    (directory / "a").mkdir(exist_ok=True)
    (directory / "b").mkdir(exist_ok=True)
    (directory / "a" / "file").write_bytes(old)
    (directory / "b" / "file").write_bytes(new)
    command = ["git", "diff", "--no-index", "--no-prefix", "--text", "a/file", "b/file"]
    return subprocess.run(command, cwd=directory, capture_output=True).stdout


@settings(max_examples=50, deadline=None)
@given(old=CONTENT, new=CONTENT)
def test_git_diffs_apply_forward_and_reverse(
    tmp_path_factory: pytest.TempPathFactory, old: bytes, new: bytes
) -> None:
    assume(old != new)
    directory = tmp_path_factory.mktemp("diff")
    text = git_diff(directory, old, new)
    diffs = {diff.path: diff for diff in parse_valid(text, "p.patch").diffs}
    assert set(diffs) == {"file"}
    assert content.apply_diff(old, diffs["file"]) == new
    assert content.apply_diff(new, diffs["file"], reverse=True) == old


def test_hunk_at_an_offset_is_refused(tmp_path: Path) -> None:
    text = git_diff(tmp_path, b"1\n" * 9 + b"old\n", b"1\n" * 9 + b"new\n")
    (diff,) = parse_valid(text, "p.patch").diffs
    # The same lines one line further down: git would silently apply it at an offset.
    with pytest.raises(UsageError, match="line 7 does not fit"):
        content.apply_diff(b"1\n" * 10 + b"old\n", diff)


def test_content_of_a_link_is_its_target_to_the_last_slash(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("folder")
    assert read_file(tmp_path, "link") == b"folder"
    (tmp_path / "link").unlink()
    os.symlink("folder/", tmp_path / "link")
    assert read_file(tmp_path, "link") == b"folder/"
