"""A run's own Ray cluster starts at the second attempt when the first one timed out."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from harness import TESTS

SCRIPT = """
import sys
from contextlib import nullcontext
import ray
from vime_runtime.cluster import ray_cluster
from harness.run_config import make_run_config

start, attempts = ray.init, []

def slow(**options):
    start(**options)
    attempts.append(options)
    if len(attempts) == 1:  # its daemons run, too late
        raise Exception("The current node timed out during startup.")

ray.init = slow
ray_cluster.reserve = lambda config, report: nullcontext()
recipe = {"cluster": {"device": "cpu", "devices_per_node": 1}}
config = make_run_config({"recipe": recipe, "run_dir": sys.argv[1], "scratch_dir": sys.argv[1]})
with ray_cluster.ray_cluster(config, print):
    print("attempts:", len(attempts), "CPUs:", ray.cluster_resources()["CPU"])
"""


def test_a_second_attempt_joins_its_own_cluster() -> None:
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    with tempfile.TemporaryDirectory() as folder:  # pytest's is too long for the sockets
        command = [sys.executable, "-c", SCRIPT, folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert "attempts: 2 CPUs: 1.0" in done.stdout, done.stderr
