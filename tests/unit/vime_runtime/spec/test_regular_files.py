from __future__ import annotations

import os
from pathlib import Path

import pytest
from vime_runtime.spec.regular_files import open_regular, read_regular


def test_a_file_and_a_link_to_one_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "file", 5) == b"12345"
    assert read_regular(tmp_path / "link", 5) == b"12345"
    with open_regular(tmp_path / "file") as file:
        assert file.readline() == b"12345"


def test_a_pipe_a_device_a_folder_and_a_large_file_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for path in (tmp_path / "pipe", tmp_path / "link", Path("/dev/zero")):
        with pytest.raises(OSError, match="not a regular file"):
            read_regular(path)
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path)
    (tmp_path / "file").write_bytes(b"12345")
    with pytest.raises(OSError, match="larger than 4 bytes"):
        read_regular(tmp_path / "file", 4)
    with pytest.raises(OSError, match="larger than 10 bytes"):
        read_regular(Path("/proc/self/status"), 10)  # its size is said to be 0
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "missing")


def test_a_link_is_refused_on_request_and_below_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        assert read_regular("file", dir_fd=folder, follow=False) == b"12345"
        with pytest.raises(OSError, match="symbolic link"):
            read_regular("link", dir_fd=folder, follow=False)
    finally:
        os.close(folder)
