from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from vime_runtime.cluster.placement import create_temporary_folder, interface_of

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


def test_the_interface_of_an_address() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("203.0.113.7") is None
