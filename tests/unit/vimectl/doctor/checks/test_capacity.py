from __future__ import annotations

import pytest

from harness.doctor.described_machine import Machine
from vimectl.util.host import CommandResult


@pytest.mark.parametrize(
    ("size", "fix"), [(2**16, "mount -o remount,size="), (2**23, "remove what fills /dev/shm")]
)
def test_fix_for_shared_memory_depends_on_its_size(cpu: Machine, size: int, fix: str) -> None:
    header = "Filesystem 1024-blocks Used Available Capacity Mounted on"
    cpu.commands["df -Pk /dev/shm"] = CommandResult(0, f"{header}\nnone {size} {size} 0 100% /dev/shm\n")
    result = cpu.check("host.shm")
    assert (result.status, result.found.split(" free")[0]) == ("fail", "0 B")
    assert result.fix.startswith(fix)
