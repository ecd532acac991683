"""Fail a change by the file system or a concurrent edit; see test_crash for kills."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from vime_runtime.spec.errors import CheckFailed, MissingRequirement

from harness.needs import mounted_disk
from harness.patches import disk_operations
from harness.patches.toy_packages import snapshot, unpack
from vimectl.patches import command, transaction
from vimectl.patches.series import Series
from vimectl.patches.state import classify
from vimectl.patches.target import find_at
from vimectl.patches.target_lock import locked
from vimectl.patches.target_tree import FOLDER
from vimectl.patches.transaction import FileStep


@pytest.fixture
def places(tmp_path: Path) -> list[Path]:
    """Return two target directories, like those of two packages installed in different places."""
    for name in ("one", "two"):
        (tmp_path / name / "p").mkdir(parents=True)
        (tmp_path / name / "p" / "changed.py").write_bytes(b"old\n")
        (tmp_path / name / "p" / "gone.py").write_bytes(b"old\n")
        (tmp_path / name / "p" / "changed.py").chmod(0o550)
    return [tmp_path / "one", tmp_path / "two"]


def steps(places: list[Path]) -> list[FileStep]:
    return [
        step
        for place in places
        for step in (
            FileStep(place, "p/changed.py", b"old\n", b"new\n"),
            FileStep(place, "p/gone.py", b"old\n", None),
            FileStep(place, "p/made.py", None, b"new\n"),
        )
    ]


def change(places: list[Path]) -> None:
    with locked(places):
        transaction.execute("apply", steps(places))


def test_recovery_keeps_a_file_edited_after_the_kill(places: list[Path]) -> None:
    disk_operations.interrupt(lambda: change(places))
    edited = places[1] / "p" / "changed.py"
    edited.write_bytes(b"mine\n")
    with pytest.raises(CheckFailed, match="was edited after an interrupted apply") as caught:
        transaction.recover(places[0])
    assert edited.read_bytes() == b"mine\n"
    # The hint names both contents; with either in place the recovery finishes the change.
    kept = [Path(word) for word in caught.value.hint.split() if ".vimectl" in word]
    assert [path.read_bytes() for path in kept] == [b"old\n", b"new\n"]
    edited.write_bytes(b"old\n")
    transaction.recover(places[1])
    assert edited.read_bytes() == b"new\n"
    assert (places[0] / "p" / "made.py").exists()


def test_new_change_is_refused_before_recovery(places: list[Path]) -> None:
    disk_operations.interrupt(lambda: change(places))
    with pytest.raises(CheckFailed, match="a change was interrupted"):
        change(places)
    transaction.recover(places[0])
    assert (places[1] / "p" / "made.py").exists()


def test_full_disk_changes_nothing(places: list[Path]) -> None:
    before = snapshot(*places)
    big = [*steps(places), FileStep(places[1], "p/big.py", None, b"x" * 100_000)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with locked(places), pytest.raises(MissingRequirement, match="cannot prepare the change"):
            transaction.execute("apply", big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert snapshot(*places) == before


@pytest.mark.needs("root")
def test_disk_with_any_space_that_is_not_enough_changes_nothing(tmp_path: Path, toy_series: Series) -> None:
    with mounted_disk(tmp_path / "disk", "1m") as disk:
        site = unpack(disk / "site")
        status = classify(find_at(site, "toy", "toy"), toy_series)
        before = snapshot(site)
        for kib in range(0, 56, 4):
            space = os.statvfs(disk)
            (disk / "rest").write_bytes(bytes(space.f_bavail * space.f_frsize - kib * 1024))
            with pytest.raises(MissingRequirement, match="No space left on device"):
                command.change("apply", [status])
            assert snapshot(site) == before
            (disk / "rest").unlink()
        command.change("apply", [status])


def test_failing_replace_rolls_the_change_back(places: list[Path]) -> None:
    before = snapshot(*places)

    def refuse(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        if name != "rename":
            return
        if disk_operations.absolute(arguments[1], keywords["dst_dir_fd"]).endswith("two/p/made.py"):
            raise PermissionError(errno.EPERM, "not permitted")

    with (
        locked(places),
        disk_operations.watched(refuse),
        pytest.raises(MissingRequirement, match="cannot replace a file") as e,
    ):
        transaction.execute("apply", steps(places))
    assert e.value.hint == "everything is as it was before"
    assert snapshot(*places) == before


def test_read_only_folder_is_refused_before_the_change(places: list[Path]) -> None:
    before = snapshot(*places)
    real = os.access

    def access(path: str, mode: int, dir_fd: int) -> bool:  # even root cannot write to a read-only mount
        folder = Path(disk_operations.absolute(path, dir_fd))
        return folder != places[1] / "p" and real(path, mode, dir_fd=dir_fd)

    with (
        locked(places),
        mock.patch("os.access", access),
        pytest.raises(MissingRequirement, match="p is read-only"),
    ):
        transaction.execute("apply", steps(places))
    assert snapshot(*places) == before


@pytest.mark.needs("root")
def test_new_files_get_the_owner_of_their_folder(places: list[Path]) -> None:
    for path in (places[0], *places[0].rglob("*")):
        os.chown(path, 1234, 4321)
    change(places)
    owners = {path: (path.stat().st_uid, path.stat().st_gid) for path in places[0].rglob("*")}
    assert set(owners.values()) == {(1234, 4321)}
    assert places[0] / "p" / "made.py" in owners


@pytest.mark.parametrize("folder_name", ["p", "p/deep"])
def test_link_out_of_the_target_is_not_followed(places: list[Path], tmp_path: Path, folder_name: str) -> None:
    outside = tmp_path / "outside"
    (places[0] / folder_name).rename(outside) if folder_name == "p" else outside.mkdir()
    (places[0] / folder_name).symlink_to(outside)
    before = snapshot(outside)
    more = FileStep(places[0], f"{folder_name}/more.py", None, b"new\n")
    with locked(places), pytest.raises(CheckFailed, match="symbolic link out of the target"):
        transaction.execute("apply", [*steps(places), more])
    assert snapshot(outside) == before


def test_bookkeeping_folder_that_is_a_link_is_refused(places: list[Path], tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (places[0] / FOLDER).symlink_to(tmp_path / "outside")
    with pytest.raises(MissingRequirement, match="is a symbolic link"), locked(places):
        pass
    assert not list((tmp_path / "outside").iterdir())


@pytest.mark.parametrize("path", ["../outside.py", "/outside.py", "p/../../outside.py"])
def test_foreign_journal_writes_nothing_outside(places: list[Path], tmp_path: Path, path: str) -> None:
    disk_operations.interrupt(lambda: change(places))
    journal = places[0] / FOLDER / "journal.json"
    data = json.loads(journal.read_bytes())
    data["moves"][2]["path"] = path
    journal.write_text(json.dumps(data))
    with pytest.raises(CheckFailed, match="this user did not begin"):
        transaction.recover(places[0])
    assert not (tmp_path / "outside.py").exists()


def test_recovery_skips_directories_without_a_pointer(places: list[Path]) -> None:
    disk_operations.interrupt(lambda: change(places))
    (places[1] / FOLDER / "journal.json").unlink()
    before = snapshot(places[1] / "p")
    transaction.recover(places[0])
    assert snapshot(places[1] / "p") == before


def test_damaged_staged_file_is_not_used(places: list[Path]) -> None:
    disk_operations.interrupt(lambda: change(places))
    (places[0] / FOLDER / "stage" / "0.after").write_bytes(b"ne")
    with pytest.raises(CheckFailed, match="is damaged"):
        transaction.recover(places[0])
    assert (places[0] / "p" / "changed.py").read_bytes() == b"old\n"


def test_new_file_has_a_later_modification_time(places: list[Path]) -> None:
    path = places[0] / "p" / "changed.py"
    ahead = int(time.time()) + 100
    os.utime(path, (ahead, ahead))
    change(places)
    assert int(path.stat().st_mtime) > ahead


def test_bytecode_behind_a_link_is_kept(places: list[Path], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "changed.cpython-311.pyc").write_bytes(b"x")
    (places[0] / "p" / "__pycache__").symlink_to(tmp_path / "elsewhere")
    change(places)
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1


def test_file_changed_since_the_plan_is_refused(places: list[Path]) -> None:
    (places[1] / "p" / "changed.py").write_bytes(b"mine\n")
    before = snapshot(*places)
    with locked(places), pytest.raises(CheckFailed, match="just been changed"):
        transaction.execute("apply", steps(places))
    assert snapshot(*places) == before


def test_stale_bytecode_is_removed_and_modes_are_kept(places: list[Path]) -> None:
    cache = places[0] / "p" / "__pycache__"
    cache.mkdir()
    for name in ("changed.cpython-311.pyc", "changed.cpython-311.opt-1.pyc", "changed2.cpython-311.pyc"):
        (cache / name).write_bytes(b"x")
    change(places)
    assert [path.name for path in cache.iterdir()] == ["changed2.cpython-311.pyc"]
    assert (places[0] / "p" / "changed.py").stat().st_mode & 0o7777 == 0o550


def test_hard_link_keeps_the_old_content(places: list[Path]) -> None:
    # Installers that hard-link from a cache: the cache must not be patched.
    cached = places[0] / "cached.py"
    os.link(places[0] / "p" / "changed.py", cached)
    change(places)
    assert cached.read_bytes() == b"old\n"
    assert (places[0] / "p" / "changed.py").read_bytes() == b"new\n"
