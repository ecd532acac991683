"""Run real processes that print in every way there is, and one that crashes."""

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

ENGINE = """
import multiprocessing, sys
from pathlib import Path
from vime_runtime.logging import process_log
from vime_runtime.spec.run_paths import RunPaths

def work():
    process_log.redirect_worker_output()
    process_log.mark_phase("sync", 2)
    print("loaded")

if __name__ == "__main__":
    process_log.redirect_output(RunPaths(Path(sys.argv[1])), "engine 0")
    spawn = multiprocessing.get_context("spawn")
    for name in ("VllmWorker-1", "resource tracker"):
        process = spawn.Process(target=work, name=name)
        process.start()
        process.join()
        assert process.exitcode == 0
"""


def run(script: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "script.py"
    file.write_text(script)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("VIME_ENGINE_LOG", None)
    return subprocess.run(
        [sys.executable, str(file), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_all_output_of_a_process_is_in_its_log(tmp_path: Path) -> None:
    done = run(PRINTS, tmp_path)
    assert done.returncode < 0
    assert done.stdout == done.stderr == ""
    lines = (tmp_path / "logs" / "trainer-1.log").read_text().splitlines()
    assert re.fullmatch(r"--- \d\d:\d\d:\d\d trainer 1: start-up", lines[0])
    assert lines[1:4] == ["by print", "by the descriptor", "by a child"]
    assert lines[4].endswith("trainer 1 WARNING megatron: by logging")
    assert lines[5].endswith("trainer 1: step 3 train")
    assert "Fatal Python error: Aborted" in lines


def test_an_engine_worker_has_a_log_next_to_the_engines(tmp_path: Path) -> None:
    done = run(ENGINE, tmp_path)
    assert done.returncode == 0, done.stderr
    worker, engine = ((tmp_path / "logs" / f"engine-0{end}.log").read_text() for end in ("-worker-1", ""))
    assert re.fullmatch(r"--- \S+ engine 0 worker 1: step 2 sync\nloaded\n", worker)
    assert engine.count("loaded") == 1  # any other child writes to the engine's


def test_a_resumed_run_appends_to_the_log(tmp_path: Path) -> None:
    for _ in range(2):
        run(PRINTS, tmp_path)
    assert (tmp_path / "logs" / "trainer-1.log").read_text().count("by print") == 2
