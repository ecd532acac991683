"""A process of a real run dies or is stopped: the run ends in time, names the process, and leaves nothing.

``harness.runs.process_deaths`` prints the table of all cases.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.runs.process_deaths import (
    KINDS,
    PHASES,
    RESULTS,
    SIGNALS,
    SignalCase,
    cases,
    run_case,
    run_case_once,
)

# The launcher is killed in test_resume.py.
LOST_WORKER = SignalCase("engine-worker", "SIGKILL", "rollout")
REST = [case for case in cases(list(KINDS), list(SIGNALS), list(PHASES)) if case != LOST_WORKER]

FOREIGN_RAY = """
import os, secrets, sys, ray
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # otherwise Ray writes one to the home directory
ray.init(address="local", num_cpus=1, object_store_memory=80 * 1024**2, include_dashboard=False)
@ray.remote
class Counter:
    count = 0
    def up(self):
        self.count += 1
        return self.count
counter = Counter.remote()
for line in sys.stdin:
    print(ray.get(counter.up.remote(), timeout=30), flush=True)
"""


def name(case: SignalCase) -> str:
    return f"{case.kind}-{case.signal}-{case.phase}"


@pytest.mark.exhaustive
@pytest.mark.parametrize("case", REST, ids=name)
def test_lost_process_in_any_phase(case: SignalCase) -> None:
    """All cases take two to four hours. A case whose result is in deaths.jsonl is not run again."""
    result = run_case_once(case, RESULTS)
    assert result.ok, result


@pytest.fixture
def foreign_ray() -> Iterator[subprocess.Popen[str]]:
    """Another Ray cluster of the same user; it answers every line with a count."""
    process = subprocess.Popen(
        [sys.executable, "-c", FOREIGN_RAY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    assert process.stdin
    process.stdin.close()
    process.wait(30)


@pytest.fixture
def foreign_engine() -> Iterator[subprocess.Popen[bytes]]:
    """A process with the name of one of vLLM's."""
    process = subprocess.Popen(["VLLM::EngineCore", "600"], executable="/bin/sleep")
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def foreign_files() -> Iterator[list[Path]]:
    """Unused files in /dev/shm with names like those of Python, PyTorch and glibc."""
    files = [Path("/dev/shm") / name for name in ("psm_foreign", "torch_1_2_3", "sem.foreign")]
    for file in files:
        file.write_text("of another program")
    yield files
    for file in files:
        file.unlink()


@pytest.mark.slow
def test_lost_engine_worker_ends_its_run_and_nothing_else(
    foreign_ray: subprocess.Popen[str],
    foreign_engine: subprocess.Popen[bytes],
    foreign_files: list[Path],
    tmp_path: Path,
) -> None:
    assert answer(foreign_ray) == "1\n"
    result = run_case(LOST_WORKER, tmp_path)
    assert result.ok, result
    assert answer(foreign_ray) == "2\n"
    assert foreign_engine.poll() is None
    assert all(file.read_text() == "of another program" for file in foreign_files)


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdin
    assert process.stdout
    process.stdin.write("up\n")
    process.stdin.flush()
    return process.stdout.readline()
