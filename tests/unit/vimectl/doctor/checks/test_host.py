from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vimectl.doctor import run_checks
from vimectl.recipes.resolve import resolve
from vimectl.stacks.catalog import load_stack

if TYPE_CHECKING:
    from conftest import Machine

GIB = 1024**3


@pytest.mark.parametrize(
    ("size", "fix"), [(GIB // 16, "mount -o remount,size="), (8 * GIB, "remove what fills /dev/shm")]
)
def test_fix_for_shared_memory_depends_on_its_size(cpu: Machine, size: int, fix: str) -> None:
    cpu.df("/dev/shm", size, 0)
    recipe = resolve("qwen3-tiny-tp2").recipe
    (result,) = run_checks(cpu.host(), load_stack("cpu-0.32"), recipe, ["host.shm"]).results
    assert (result.status, result.found.split(" free")[0]) == ("fail", "0 B")
    assert result.fix.startswith(fix)
