from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path

import pytest
from vime_runtime.spec.boot_id import boot_id

from harness.runs.killed_run import leave_scratch_directory
from vimectl.util.host import Host
from vimectl.util.scratch_directory import (
    OWNER,
    SCRATCH,
    SHM_LOG,
    ScratchDirectory,
    read_scratch_directory,
    remove_ended,
    scratch_directory,
)
from vimectl.util.shared_memory import ShmFile


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "vime-0123abcd"


def read(scratch: Path) -> ScratchDirectory:
    return read_scratch_directory(Host(), str(scratch))


def change(scratch: Path, **fields: object) -> None:
    """Change the marker; None removes a field."""
    marker = json.loads((scratch / OWNER).read_text()) | fields
    marker = {name: value for name, value in marker.items() if value is not None}
    (scratch / OWNER).write_text(json.dumps(marker))


def test_directory_is_private_and_active_until_its_end(scratch: Path) -> None:
    with scratch_directory(scratch, Path("/runs/a")) as shm_log:
        assert scratch.stat().st_mode & 0o777 == 0o700
        assert shm_log == scratch / SHM_LOG
        assert read(scratch) == ScratchDirectory(str(scratch), "active", "/runs/a")
        assert read(scratch).state == "active"  # reading does not release the lock
        assert json.loads((scratch / OWNER).read_text())["pid"] == os.getpid()
    assert not scratch.exists()


def test_error_in_the_run_removes_it(scratch: Path) -> None:
    with pytest.raises(KeyboardInterrupt), scratch_directory(scratch):
        raise KeyboardInterrupt
    assert not scratch.exists()


def test_existing_directory_is_not_taken(scratch: Path) -> None:
    scratch.mkdir()
    with pytest.raises(FileExistsError), scratch_directory(scratch):
        pass
    assert scratch.exists()


def test_directory_of_a_killed_process_has_ended(scratch: Path) -> None:
    leave_scratch_directory(scratch)
    (scratch / SHM_LOG).write_text("12 /dev/shm/psm_1\n13 /dev/shm/sem.a\n14 /dev")
    assert read(scratch) == ScratchDirectory(
        str(scratch), "ended", "", (("/dev/shm/psm_1", 12), ("/dev/shm/sem.a", 13))
    )


def test_files_in_shared_memory_do_not_survive_a_boot(scratch: Path) -> None:
    leave_scratch_directory(scratch)
    (scratch / SHM_LOG).write_text("12 /dev/shm/psm_1\n")
    change(scratch, boot="another")
    assert (read(scratch).state, read(scratch).shm) == ("ended", ())


@pytest.mark.parametrize(("host", "boot"), [("another", "another"), ("another", boot_id())])
def test_run_of_another_machine_is_unknown_but_not_that_of_a_container(
    scratch: Path, host: str, boot: str
) -> None:
    leave_scratch_directory(scratch)
    change(scratch, host=host, boot=boot)
    assert read(scratch).state == ("unknown" if boot == "another" else "ended")


@pytest.mark.parametrize(
    "fields", [{"schema": "vimectl.scratch/2"}, {"boot": None}, {"run_dir": 5}, {"more": 1}]
)
def test_marker_of_another_version_is_unknown(scratch: Path, fields: dict[str, object]) -> None:
    leave_scratch_directory(scratch)
    change(scratch, **fields)
    assert read(scratch).state == "unknown"


@pytest.mark.parametrize("text", ["", "null", "[]", "{", "[" * 100_000])
def test_damaged_marker_is_unknown(scratch: Path, text: str) -> None:
    leave_scratch_directory(scratch)
    (scratch / OWNER).write_text(text)
    assert read(scratch).state == "unknown"


def test_directory_of_another_user_is_unknown_and_not_read(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_scratch_directory(scratch)
    seen: list[str] = []
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    host = Host(observe=lambda what, problem: seen.append(what))
    assert read_scratch_directory(host, str(scratch)).state == "unknown"
    assert seen == [str(scratch)]


def test_directory_that_has_ended_is_removed_with_its_shared_memory(scratch: Path, tmp_path: Path) -> None:
    leave_scratch_directory(scratch)
    (scratch / "ray" / "logs").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (scratch / "ray" / "link").symlink_to(tmp_path / "outside")
    left, other, used = (Path(f"/dev/shm/test-{os.getpid()}-{name}") for name in ("left", "other", "used"))
    try:
        for file in (left, other, used):
            file.write_text("x")
        inodes = [left.stat().st_ino, other.stat().st_ino + 1, used.stat().st_ino]
        lines = [f"{inode} {file}\n" for inode, file in zip(inodes, (left, other, used), strict=True)]
        (scratch / SHM_LOG).write_text("".join(lines))
        with used.open():
            assert remove_ended(read(scratch)) == [ShmFile(str(left), 1)]
        assert not left.exists()
        assert other.exists()  # another file has the name
        assert used.exists()
        assert not scratch.exists()
        assert (tmp_path / "outside").exists()
    finally:
        for file in (left, other, used):
            file.unlink(missing_ok=True)


@pytest.mark.parametrize("reason", ["locked", "copy", "link", "marker", "old marker"])
def test_directory_that_is_not_proven_to_have_ended_is_kept(
    scratch: Path, tmp_path: Path, reason: str
) -> None:
    leave_scratch_directory(scratch)
    found = ScratchDirectory(str(scratch), "ended")
    with (scratch / OWNER).open() as file:
        match reason:
            case "locked":  # since it was read
                fcntl.flock(file, fcntl.LOCK_EX)
            case "copy":
                scratch.rename(tmp_path / "moved")
                shutil.copytree(tmp_path / "moved", scratch)
            case "link":
                scratch.rename(tmp_path / "moved")
                scratch.symlink_to(tmp_path / "moved")
            case "marker":
                (scratch / OWNER).write_text("{}")
            case "old marker":
                change(scratch, inode=None)
        try:
            assert remove_ended(found) is None
        except OSError:
            assert reason == "link"
    assert (scratch / OWNER).exists()


@pytest.mark.parametrize(
    ("path", "fits"),
    [
        ("/tmp/vime-0123abcd", True),
        ("/data/a b/vime-0123abcd", True),
        ("/vime-0123abcd", True),
        ("/tmp/vime-0123abc", False),
        ("/tmp/vime-test-12", False),
        ("/tmp/vime-0123abcd/ray", False),
        ("vime-0123abcd", False),
    ],
)
def test_paths_of_scratch_directories(path: str, fits: bool) -> None:
    assert bool(SCRATCH.fullmatch(path)) is fits
