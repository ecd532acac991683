from __future__ import annotations

import os
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

from vimectl.util.host import Host
from vimectl.util.shared_memory import ShmFile, own_files, unused_files, used_inodes


def test_file_of_a_live_process_is_in_use() -> None:
    block = SharedMemory(create=True, size=64)
    try:
        path = f"/dev/shm/{block.name.lstrip('/')}"
        inode = os.stat(path).st_ino
        assert own_files(Host())[inode] == ShmFile(path, 64)
        assert inode in used_inodes(Host(), os.getpid())
        assert inode not in unused_files(Host())
    finally:
        block.close()
        block.unlink()


def test_mapping_under_a_temporary_name_counts(tmp_path: Path) -> None:
    shm, process = tmp_path / "dev/shm", tmp_path / "proc/7"
    shm.mkdir(parents=True)
    process.mkdir(parents=True)
    (shm / "sem.lock").write_text("x")
    (shm / "psm_1").write_text("xyz")
    (shm / "link").symlink_to("psm_1")
    inode = (shm / "sem.lock").stat().st_ino
    (process / "maps").write_text(f"7f00-7f01 rw-s 00000000 00:1a {inode}      /dev/shm/sem.Xy (deleted)\n")
    host = Host(tmp_path, {})
    assert used_inodes(host, 7) == {inode}
    assert list(unused_files(host).values()) == [ShmFile("/dev/shm/psm_1", 3)]


def test_without_dev_shm_there_are_no_files(tmp_path: Path) -> None:
    assert own_files(Host(tmp_path, {})) == {}
