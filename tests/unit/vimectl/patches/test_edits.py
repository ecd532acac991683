"""Show, refuse and merge the user's edits of patched files, and restore them on revert."""

from __future__ import annotations

from pathlib import Path

import pytest
from vime_runtime.spec.errors import CheckFailed

from harness.git import commit, git
from harness.patches.toy_packages import build_series
from vimectl.patches import command, edits
from vimectl.patches.plan import PatchAction
from vimectl.patches.series import Series
from vimectl.patches.state import TargetStatus, classify
from vimectl.patches.target import PatchTarget, find_at

LINES = [f"line {number}\n".encode() for number in range(20)]


@pytest.fixture
def long_series(tmp_path: Path) -> Series:
    """Return a series whose file is long enough for edits outside of the patch."""
    patched = [*LINES]
    patched[5] = b"patched\n"
    stages = [
        {"long/__init__.py": (0o644, b"".join(LINES))},
        {"long/__init__.py": (0o644, b"".join(patched))},
    ]
    return build_series("long", stages, tmp_path / "series")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a work tree with the release committed, so that git has a copy of it."""
    place = tmp_path / "checkout"
    (place / "long").mkdir(parents=True)
    (place / "long/__init__.py").write_bytes(b"".join(LINES))
    (place / "unrelated.txt").write_bytes(b"committed\n")
    commit(place)
    return place


def edited(number: int, text: bytes) -> bytes:
    lines = [*LINES]
    lines[number] = text
    return b"".join(lines)


def target_of(place: Path) -> PatchTarget:
    found = find_at(place, "long", "long", version="1.0")
    return found


def status(place: Path, series: Series) -> TargetStatus:
    return classify(target_of(place), series)


def run(action: PatchAction, place: Path, series: Series, merge: bool = False) -> TargetStatus:
    return command.change(action, [status(place, series)], merge=merge).targets[0]


def test_edits_are_merged_and_restored_by_revert(checkout: Path, long_series: Series) -> None:
    path = checkout / "long/__init__.py"
    mine = edited(15, b"mine\n")
    path.write_bytes(mine)
    (checkout / "unrelated.txt").write_bytes(b"my work\n")
    assert status(checkout, long_series).state == "drifted"
    with pytest.raises(CheckFailed, match=r"(?s)\+mine.*") as refused:
        run("apply", checkout, long_series)
    assert "--merge" in refused.value.hint
    assert path.read_bytes() == mine

    found = run("apply", checkout, long_series, merge=True)
    assert b"mine\n" in path.read_bytes()
    assert b"patched\n" in path.read_bytes()
    assert found.state == "applied"
    assert found.patches[0].files == (("long/__init__.py", "merged"),)
    assert run("apply", checkout, long_series).state == "applied"  # again: no change, and the edits remain
    assert b"mine\n" in path.read_bytes()
    # Git lists the edited files and not the bookkeeping.
    assert git(checkout, "status", "--porcelain").split() == [
        b"M",
        b"long/__init__.py",
        b"M",
        b"unrelated.txt",
    ]

    run("revert", checkout, long_series)
    assert path.read_bytes() == mine
    assert (checkout / "unrelated.txt").read_bytes() == b"my work\n"
    assert not (checkout / ".vimectl").exists()


def test_edits_of_a_patched_file_survive_the_revert(checkout: Path, long_series: Series) -> None:
    path = checkout / "long/__init__.py"
    run("apply", checkout, long_series)
    path.write_bytes(path.read_bytes().replace(b"line 15\n", b"mine\n"))
    with pytest.raises(CheckFailed, match="was edited"):
        run("revert", checkout, long_series)
    run("revert", checkout, long_series, merge=True)
    assert path.read_bytes() == edited(15, b"mine\n")


def test_edits_after_a_merge_survive_the_revert(checkout: Path, long_series: Series) -> None:
    path = checkout / "long/__init__.py"
    path.write_bytes(edited(15, b"mine\n"))
    run("apply", checkout, long_series, merge=True)
    path.write_bytes(path.read_bytes().replace(b"line 18\n", b"later\n"))
    assert status(checkout, long_series).state == "drifted"
    run("apply", checkout, long_series, merge=True)
    run("revert", checkout, long_series)
    assert path.read_bytes() == edited(15, b"mine\n").replace(b"line 18\n", b"later\n")


def test_conflict_is_shown_and_changes_nothing(checkout: Path, long_series: Series) -> None:
    path = checkout / "long/__init__.py"
    mine = edited(5, b"mine\n")
    path.write_bytes(mine)
    with pytest.raises(CheckFailed, match="cannot be merged") as caught:
        run("apply", checkout, long_series, merge=True)
    for part in (
        "<<<<<<< long/__init__.py as it is",
        "mine",
        "line 5",
        "patched",
        ">>>>>>> long/__init__.py as wanted",
    ):
        assert part in caught.value.message
    assert path.read_bytes() == mine
    assert not (checkout / ".vimectl").exists()


def test_dry_run_merges_nothing(checkout: Path, long_series: Series) -> None:
    path = checkout / "long/__init__.py"
    path.write_bytes(edited(15, b"mine\n"))
    outcome = command.change("apply", [status(checkout, long_series)], dry_run=True, merge=True)
    assert len(outcome.plan.changed()) == 1
    assert path.read_bytes() == edited(15, b"mine\n")


def test_upstream_change_is_recognized(tmp_path: Path, long_series: Series) -> None:
    place = tmp_path / "next"
    (place / "long").mkdir(parents=True)
    # The next release has the lines of the patch, three lines further down.
    content = b"new\n" * 3 + edited(5, b"patched\n")
    (place / "long/__init__.py").write_bytes(content)
    found = status(place, long_series)
    assert (found.state, found.patches[0].state) == ("applied", "upstream")
    assert found.as_json()["patches"][0]["files"] == [{"path": "long/__init__.py", "state": "upstream"}]
    assert command.change("apply", [found]).plan.sources == ()
    (place / "long/__init__.py").write_bytes(content.replace(b"line 7\n", b"other\n"))
    assert status(place, long_series).state == "drifted"


def test_symbolic_link_in_place_of_a_file_is_refused(
    checkout: Path, long_series: Series, tmp_path: Path
) -> None:
    path = checkout / "long/__init__.py"
    path.rename(tmp_path / "elsewhere.py")
    path.symlink_to(tmp_path / "elsewhere.py")
    for merge in (False, True):
        with pytest.raises(CheckFailed, match="it is a symbolic link, to"):
            run("apply", checkout, long_series, merge)
    assert (tmp_path / "elsewhere.py").read_bytes() == b"".join(LINES)
    assert path.is_symlink()


def test_folder_link_out_of_the_target_is_refused(
    checkout: Path, long_series: Series, tmp_path: Path
) -> None:
    (checkout / "long").rename(tmp_path / "elsewhere")
    (checkout / "long").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckFailed, match="symbolic link out of the target"):
        run("apply", checkout, long_series)
    assert (tmp_path / "elsewhere/__init__.py").read_bytes() == b"".join(LINES)


def test_ignored_tree_in_a_checkout_is_not_a_work_tree(checkout: Path) -> None:
    (checkout / ".gitignore").write_text("/build/\n")
    inner = checkout / "build" / "unpacked"
    (inner / "long").mkdir(parents=True)
    (inner / "long/__init__.py").write_bytes(b"".join(LINES))
    assert target_of(inner).kind == "tree"
    assert target_of(checkout).kind == "git"


def test_package_in_src_of_a_source_archive(tmp_path: Path, long_series: Series) -> None:
    (tmp_path / "long-1.0/src/long").mkdir(parents=True)
    (tmp_path / "long-1.0/src/long/__init__.py").write_bytes(b"".join(LINES))
    (tmp_path / "long-1.0/PKG-INFO").write_text("Metadata-Version: 2.1\nName: long\nVersion: 1.0\n")
    found = find_at(tmp_path / "long-1.0", "long", "long")
    assert (found.version, found.kind, found.location) == ("1.0", "tree", tmp_path / "long-1.0/src")
    assert classify(found, long_series).state == "pristine"


def test_diff_from_release_shows_only_patched_files(target: PatchTarget, toy_series: Series) -> None:
    assert edits.diff_from_release(classify(target, toy_series)) == ""
    (target.location / "toy/both.py").write_bytes(b"a\nB\nc\nd\n")
    (target.location / "toy/new.py").write_bytes(b"made by a patch\n")
    (target.location / "toy/crlf.py").write_bytes(b"one\r\nTWO\xff\r\nthree")
    assert edits.diff_from_release(classify(target, toy_series)).splitlines() == [
        "--- a/toy/both.py",
        "+++ b/toy/both.py",
        "@@ -1,4 +1,4 @@",
        " a",
        "-b",
        "+B",
        " c",
        " d",
        "--- /dev/null",
        "+++ b/toy/new.py",
        "@@ -0,0 +1 @@",
        "+made by a patch",
        "--- a/toy/crlf.py",
        "+++ b/toy/crlf.py",
        "@@ -1,3 +1,3 @@",
        " one",
        "-two\\xff",
        "+TWO\\xff",
        " three",
        "\\ No newline at end of file",
    ]


def test_missing_file_is_shown_as_removed(target: PatchTarget, toy_series: Series) -> None:
    blob = toy_series.chains["toy/both.py"][0]
    kept = target.location / ".vimectl" / "objects" / str(blob)
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"a\nb\nc\nd\n")
    (target.location / "toy/both.py").unlink()
    shown = edits.diff_of_edits(classify(target, toy_series)).splitlines()
    assert shown[:3] == ["--- a/toy/both.py", "+++ /dev/null", "@@ -1,4 +0,0 @@"]
