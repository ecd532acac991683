"""The doctor examines machines with damaged files: it never raises, blocks or leaves the root, and says each.

The limits are one second of processor time more than the healthy machine takes, and a minute until a call
counts as blocked, so that a busy machine does not matter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import REPOSITORY, TESTS

# Root may read any file. Without these capabilities it is denied like any other user.
_DENIED = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
_EXHAUSTIVE = pytest.mark.exhaustive


@pytest.mark.slow
@pytest.mark.parametrize(
    ("machine", "options"),
    [
        ("a2-container", ()),
        pytest.param("cpu-host", (), marks=_EXHAUSTIVE),
        pytest.param("a2-image", (), marks=_EXHAUSTIVE),
        pytest.param("a3-host", (), marks=_EXHAUSTIVE),
        *(
            pytest.param(name, ("--all",), marks=_EXHAUSTIVE)
            for name in ("a2-host", "a2-container", "a2-image", "cpu-host")
        ),
    ],
)
def test_every_fault_of_a_file_is_said_and_harmless(
    tmp_path: Path, machine: str, options: tuple[str, ...]
) -> None:
    command = [sys.executable, "-m", "harness.doctor.faults", machine, str(tmp_path), *options]
    if os.geteuid() == 0:
        command = [*_DENIED, *command]
    environment = os.environ | {"PYTHONPATH": f"{TESTS}{os.pathsep}{REPOSITORY}"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    count = sum(found["faults"].values())
    print(f"{machine}: {count} faults in {found['files']} files and {found['directories']} directories")
    assert count >= 300
    assert found["problems"] == []
