from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import multiprocessing, sys
from vime_runtime import gc_pause
from vime_runtime.logging.import_noise import hide_triton

hide_triton()
from torch.utils._triton import has_triton_package
assert not has_triton_package()
with gc_pause.children_gc_paused():
    child = multiprocessing.get_context("spawn").Process(target=exec, args=("import triton",))
    child.start()
child.join()
print(child.exitcode)
"""


def test_triton_is_hidden_from_a_process_and_those_that_it_spawns() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.stdout == "1\n", done.stderr
    assert "import of triton halted; None in sys.modules" in done.stderr
    assert "nanobind" not in done.stderr
