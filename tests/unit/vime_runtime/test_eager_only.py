from __future__ import annotations

import subprocess
import sys

import pytest

TRITON = """
import multiprocessing, sys
from vime_runtime import gc_pause
from vime_runtime.eager_only import hide_triton

hide_triton()
from torch.utils._triton import has_triton_package
assert not has_triton_package()
with gc_pause.children_gc_paused():
    child = multiprocessing.get_context("spawn").Process(target=exec, args=("import triton",))
    child.start()
child.join()
print(child.exitcode)
"""

# Prints which modules the import of a library has imported.
IMPORT = """
import sys
from vime_runtime.eager_only import hide_triton, without_inductor

{hide}
with without_inductor():
    import {library}
print(*(name for name in ("torch._inductor.compile_fx", "torch._inductor.lowering") if name in sys.modules))
import torch
print(torch.compile(mode="default", dynamic=True)(len) is len, torch.compile(len) is len)
"""


def output(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)


def test_triton_is_hidden_from_a_process_and_those_that_it_spawns() -> None:
    done = output(TRITON)
    assert done.stdout == "1\n", done.stderr
    assert "import of triton halted; None in sys.modules" in done.stderr
    assert "nanobind" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("library", ["vime_runtime.trainer.trainer", "vime_runtime.rollout.engine"])
def test_trainer_and_engine_do_not_import_inductor(library: str) -> None:
    done = output(IMPORT.format(hide="hide_triton()", library=library))
    assert done.stdout == "\nTrue True\n", done.stderr


def test_a_process_that_may_compile_keeps_the_compiler() -> None:
    done = output(IMPORT.format(hide="", library="torch"))
    assert done.stdout == "\nFalse False\n", done.stderr
