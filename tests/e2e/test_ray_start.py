"""The start of a run's own Ray cluster: a second attempt after a timeout, and daemons that are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from harness import TESTS
from harness.runs import shared_memory
from harness.runs.recipe_run import START_LIMIT, VIMECTL, processes_of
from harness.runs.wait import wait_until
from vimectl.runs.run_directory import RunDirectory

CLUSTER = """
import json, sys, threading, time
from contextlib import nullcontext, suppress
from pathlib import Path
import psutil, ray
from vime_runtime.cluster import ray_cluster
from vime_runtime.logging.event_log import EventLog
from harness.run_config import make_run_config

ray_cluster.reserve = lambda config, report: nullcontext()
recipe = {"cluster": {"device": "cpu", "devices_per_node": 1}}
config = make_run_config({"recipe": recipe, "run_dir": sys.argv[1], "scratch_dir": sys.argv[1]})
log = EventLog(Path(sys.argv[1]), 1)
"""
SLOW_START = (
    CLUSTER
    + """
start, attempts = ray.init, []

def slow(**options):
    start(**options)
    attempts.append(options)
    if len(attempts) == 1:  # its daemons run, too late
        raise Exception("The current node timed out during startup.")

ray.init = slow
with ray_cluster.ray_cluster(config, log):
    daemons = [entry["role"] for entry in log.recorded_processes]
    print(json.dumps([len(attempts), ray.cluster_resources()["CPU"], daemons]))
"""
)
SLOW_AGENTS = (
    CLUSTER
    + """
agents, ended = [], threading.Event()

def is_agent(process):
    with suppress(psutil.Error):  # it has exited
        return any(text.endswith(("dashboard/agent.py", "agent/main.py")) for text in process.cmdline())

def stop_agents():
    while len(agents) < 2 and not ended.is_set():
        for process in filter(is_agent, psutil.Process().children(recursive=True)):
            if process not in agents:
                process.suspend()
                agents.append(process)
        time.sleep(0.01)

stopping = threading.Thread(target=stop_agents)
stopping.start()
try:
    with ray_cluster.ray_cluster(config, log):
        time.sleep(20)  # a raylet waits 15 s for an agent: private_ray.py
        print(ray.get(ray.remote(lambda: 7).remote()), len(agents), [one.status() for one in agents])
finally:
    ended.set()
    stopping.join()
    for process in agents:
        if process.is_running():
            process.resume()
"""
)
# Seconds after which a run that still runs hangs. It ends within 15 s on a machine that is not busy.
END_LIMIT = 45


def test_a_second_attempt_joins_its_own_cluster() -> None:
    driver = {"RAY_AUTH_MODE": "token", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    environment = {**os.environ, **driver, "PYTHONPATH": str(TESTS)}
    with tempfile.TemporaryDirectory() as folder:  # pytest's is too long for the sockets
        command = [sys.executable, "-c", SLOW_START, folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
        assert done.returncode == 0, done.stderr
        lines = Path(folder, "events.jsonl").read_text().splitlines()
    assert json.loads(done.stdout.splitlines()[-1]) == [2, 1.0, ["GCS", "raylet"]]
    # The daemons of the first attempt are not among those whose exit is a failure.
    found = [(event["kind"], event.get("pid"), event.get("pids")) for event in map(json.loads, lines)]
    first = [pid for kind, pid, _ in found if kind == "process"][:2]
    assert ("closing", None, first) in found


@pytest.mark.slow
def test_ray_starts_with_agents_that_are_slow() -> None:
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", SLOW_AGENTS, folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
        assert done.returncode == 0, done.stderr
        kinds = [json.loads(line)["kind"] for line in Path(folder, "events.jsonl").read_text().splitlines()]
    assert done.stdout.splitlines()[-1] == "7 2 ['stopped', 'stopped']"
    assert kinds.count("closing") == 1  # the first attempt was the last


@pytest.mark.slow
@pytest.mark.parametrize(("program", "name"), [("gcs_server", "GCS"), ("raylet", "raylet 0")])
def test_daemon_that_is_killed_while_ray_starts_is_named(program: str, name: str, tmp_path: Path) -> None:
    before = shared_memory.list_files()
    run_dir = tmp_path / "run"
    command = [*VIMECTL, "run", "recipe", "qwen3-tiny-tp2", "--mode=smoke", f"--run-dir={run_dir}", "--yes"]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        daemon = wait_until(lambda: descendant(run.pid, program), START_LIMIT)
        os.kill(daemon, signal.SIGKILL)
        killed = time.monotonic()
        output = run.communicate(timeout=END_LIMIT)[0]
    finally:
        run.send_signal(signal.SIGTERM)
        run.wait()
    print(f"{time.monotonic() - killed:.1f} s after the kill of {program}")
    assert run.returncode == 1, output
    assert (RunDirectory(run_dir).summary or {}).get(
        "reason"
    ) == f"{name} (pid {daemon}) was killed by SIGKILL"
    assert processes_of(run_dir) == []
    assert shared_memory.left_files(before) == set()


def descendant(pid: int, program: str) -> int | None:
    """Return the id of a descendant with this program name."""
    for process in psutil.Process(pid).children(recursive=True):
        try:
            if process.name() == program:
                return process.pid
        except psutil.NoSuchProcess:
            continue
    return None
