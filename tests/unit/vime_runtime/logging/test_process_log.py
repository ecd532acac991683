"""Run a real process that prints in every way there is, and crashes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

PRINTS = """
import logging, os, subprocess, sys
from pathlib import Path
from vime_runtime.logging import process_log
from vime_runtime.spec.run_paths import RunPaths
process_log.redirect_output(RunPaths(Path(sys.argv[1])), "trainer 1")
process_log.mark_phase("start-up", 0)
print("by print", flush=True)
os.write(2, b"by the descriptor\\n")
subprocess.run(["echo", "by a child"])
logging.getLogger("megatron").warning("by logging")
process_log.mark_phase("train", 3)
os.abort()
"""


def test_all_output_of_a_process_is_in_its_log_also_that_of_a_resumed_run(tmp_path: Path) -> None:
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", PRINTS, str(tmp_path)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode < 0
        assert done.stdout == done.stderr == ""
    lines = (tmp_path / "logs" / "trainer-1.log").read_text().splitlines()
    assert re.fullmatch(r"--- \d\d:\d\d:\d\d trainer 1: start-up", lines[0])
    assert lines[1:4] == ["by print", "by the descriptor", "by a child"]
    assert lines[4].endswith("trainer 1 WARNING megatron: by logging")
    assert lines[5].endswith("trainer 1: step 3 train")
    assert lines.count("Fatal Python error: Aborted") == lines.count("by print") == 2
