"""The server process that forks the workers of an engine on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

# Starts a worker as vLLM does, with an environment that has changed since the server was started. Prints what
# the worker found and the server's id, then waits.
PROGRAM = """
import json, os, sys
from vime_runtime.eager_only import hide_triton
from vime_runtime.gc_pause import children_gc_paused
from vime_runtime.rollout import worker_server

def report(connection):
    import torch
    # It hangs if a library of OpenMP has started threads before the fork.
    large = torch.ones(512, 512) @ torch.ones(512, 512)
    connection.send({
        "product": large.sum().item() == 512**3,
        "imported": "vllm.v1.worker.cpu_worker" in sys.modules,
        "new": os.environ.get("NEW"),
        "old": os.environ.get("OLD"),
        "cores": sorted(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "server": os.getppid(),
    })

if __name__ == "__main__":
    os.environ |= {"OLD": "1", "OMP_NUM_THREADS": "2"}
    hide_triton()
    worker_server.start()
    del os.environ["OLD"]
    os.environ |= {"NEW": "1", "OMP_NUM_THREADS": "3", "GOMP_CPU_AFFINITY": sys.argv[1]}
    context = worker_server.context()
    mine, theirs = context.Pipe()
    worker = context.Process(target=report, args=(theirs,), daemon=True)
    worker.start()
    found = mine.recv()
    worker.join()
    print(json.dumps({**found, "exit": worker.exitcode}), flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_a_worker_has_the_imports_of_the_server_and_the_environment_of_the_engine(tmp_path: Path) -> None:
    core = max(os.sched_getaffinity(0))
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    engine = subprocess.Popen(
        [sys.executable, str(program), str(core)],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with engine:
        assert engine.stdout is not None
        found = json.loads(engine.stdout.readline())
        server = psutil.Process(found.pop("server"))
        assert server.ppid() == engine.pid
        engine.kill()
    # The server exits with the engine, even if that is killed.
    server.wait(timeout=60)
    assert found == {
        **{"imported": True, "product": True, "exit": 0},
        **{"new": "1", "old": None, "cores": [core], "threads": 3},
    }
