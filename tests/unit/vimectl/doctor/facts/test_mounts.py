"""The mounted file systems, and where temporary files are, on described machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from vimectl.doctor.facts import Unavailable
from vimectl.doctor.facts.mounts import MOUNTS, read_mount, read_scratch_parent, read_temporary
from vimectl.util.host import Host

TEXT = """\
overlay / overlay rw,relatime 0 0
tmpfs /tmp tmpfs rw,noexec 0 0
tmpfs /tmp tmpfs rw,exec 0 0
disk /data/a\\040b ext4 rw,noexec 0 0
broken
"""


def machine(root: Path, **environment: str) -> Host:
    (root / "proc/self").mkdir(parents=True)
    (root / MOUNTS.lstrip("/")).write_text(TEXT)
    (root / "tmp").mkdir()
    return Host(root, environment)


@pytest.mark.parametrize(
    ("path", "directory", "kind"),
    [
        ("/", "/", "overlay"),
        ("/tmpfiles", "/", "overlay"),
        ("/tmp", "/tmp", "tmpfs"),
        ("/tmp/run", "/tmp", "tmpfs"),
        ("/data/a b/c", "/data/a b", "ext4"),
    ],
)
def test_longest_directory_is_that_of_a_path(tmp_path: Path, path: str, directory: str, kind: str) -> None:
    mount = read_mount(machine(tmp_path), path)
    assert (mount.directory, mount.kind) == (directory, kind)


def test_last_of_several_file_systems_at_one_directory_is_used(tmp_path: Path) -> None:
    assert read_mount(machine(tmp_path), "/tmp").options == ("rw", "exec")


def test_machine_without_a_list_of_mounts(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="/proc/self/mounts has no file system of /tmp"):
        read_mount(Host(tmp_path, {}), "/tmp")


@pytest.mark.parametrize(
    ("environment", "temporary"),
    [
        ({}, "/tmp"),
        ({"TMPDIR": "/none"}, "/tmp"),
        ({"TMPDIR": "/", "TMP": "/tmp"}, "/"),
        ({"TEMP": "a"}, "/tmp"),
    ],
)
def test_directory_for_temporary_files(tmp_path: Path, environment: dict[str, str], temporary: str) -> None:
    assert read_temporary(machine(tmp_path, **environment)) == temporary


def test_scratch_directories_are_in_tmp_if_the_path_of_a_socket_were_too_long(tmp_path: Path) -> None:
    long, short = f"/tmp/{'a' * 30}", "/tmp/a"
    for path in (long, short):
        (tmp_path / path.lstrip("/")).mkdir(parents=True)
    host = Host(tmp_path, {"TMPDIR": long})
    assert read_scratch_parent(host) == "/tmp"
    assert read_scratch_parent(Host(tmp_path, {"TMPDIR": short})) == short
