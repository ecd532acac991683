from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from vime_runtime.cluster.placement import create_temporary_folder, interface_of
from vime_runtime.spec.errors import MissingRequirement

HOLDER = """
import sys, time
from vime_runtime.cluster.placement import create_temporary_folder
remover = create_temporary_folder(sys.argv[1])
print("ready", flush=True)
time.sleep(60)
"""


def test_the_temporary_folder_is_removed_when_its_process_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "scratch"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "ready\n"
    (folder / "socket").touch()
    assert folder.stat().st_mode & 0o777 == 0o700
    holder.kill()
    holder.communicate()
    deadline = time.monotonic() + 10
    while folder.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    assert create_temporary_folder(str(tmp_path)) is None
    assert tmp_path.is_dir()


@pytest.mark.parametrize("kind", ["open to others", "link", "file"])
def test_an_existing_folder_that_is_not_private_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "scratch"
    if kind == "link":
        path.symlink_to(tmp_path)
    elif kind == "file":
        path.touch(0o600)
    else:
        path.mkdir()
        path.chmod(0o770)
    with pytest.raises(MissingRequirement, match="is not a private folder of this user"):
        create_temporary_folder(str(path))


def test_the_interface_of_an_address() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("203.0.113.7") is None
