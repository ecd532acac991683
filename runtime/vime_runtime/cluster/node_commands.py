"""``python -m vime_runtime.cluster.node_commands``: run a Python module on every node of a Ray cluster.

Reads one JSON document on stdin and writes one on stdout, see ``run_everywhere``. The cluster stays as it is:
the tasks take no resources, have no runtime environment, and end with this driver.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from vime_runtime.cluster import external_cluster
from vime_runtime.spec.errors import VimeError

# Seconds that Ray may take for a task in addition to the time of the command: it starts a process first.
START_SECONDS = 30


def run_everywhere(address: str, module: str, document: str, seconds: float) -> list[dict[str, Any]]:
    """Run ``python -m module`` on every node that is alive; return the answers, or what prevented them.

    Each node starts the interpreter of its Ray in a new process, with the environment that its raylet
    gives to workers. An answer has ``node`` and ``address``, and either ``problem`` or ``code``, ``stdout``,
    ``stderr``, and four readings of clocks in seconds: ``sent`` and ``received`` here, ``began`` and
    ``ended`` on the node in between.

    Args:
        document: the standard input of the module.
        seconds: the time limit of the command.

    Raises:
        MissingRequirement: there is no such cluster, or it does not accept this driver.
    """
    external_cluster.require_cluster(address)
    external_cluster.connect(address, namespace="vimectl-doctor")
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task: Any = ray.remote(_run_here)
    pending, answers = {}, []
    for node in ray.nodes():
        if node["Alive"]:
            place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            options = task.options(num_cpus=0, max_retries=0, scheduling_strategy=place)
            answer = {"node": node["NodeID"], "address": node["NodeManagerAddress"], "sent": time.time()}
            pending[options.remote(module, document, seconds)] = answer
            answers.append(answer)
    deadline = time.monotonic() + seconds + START_SECONDS
    while pending and (left := deadline - time.monotonic()) > 0:
        for done in ray.wait(list(pending), timeout=left)[0]:
            answer = pending.pop(done)
            answer["received"] = time.time()
            try:
                answer |= ray.get(done)
            except (ray.exceptions.TaskUnschedulableError, ray.exceptions.NodeDiedError):
                answer["problem"] = "it has left the cluster: Ray has lost contact with it"
            except ray.exceptions.RayError as e:
                answer["problem"] = " ".join(str(e).split())
    for task, answer in pending.items():
        answer["problem"] = f"no answer within {seconds + START_SECONDS:g} s"
        ray.cancel(task, force=True)
    ray.shutdown()
    return answers


def _run_here(module: str, document: str, seconds: float) -> dict[str, Any]:
    """Run the module on this node. Ray copies this function, so the node need not have this file."""
    import subprocess
    import sys
    import time
    from pathlib import Path

    began = time.time()
    # The environment when this worker was started: Ray changes it later, for each task.
    lines = Path("/proc/self/environ").read_text(errors="surrogateescape").split("\0")
    environment = dict(line.split("=", 1) for line in lines if "=" in line)
    try:
        done = subprocess.run(
            [sys.executable, "-m", module],
            input=document,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return {"problem": f"not finished within {seconds:g} s"}
    return {
        "code": done.returncode,
        "stdout": done.stdout,
        "stderr": done.stderr,
        "began": began,
        "ended": time.time(),
    }


def main() -> None:
    """Answer the request on stdin: the arguments of ``run_everywhere``."""
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what Ray prints is not part of the answer
    # Inside `uv run`, Ray would give the tasks a runtime environment.
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    document: dict[str, Any]
    try:
        document = {"nodes": run_everywhere(**json.load(sys.stdin))}
    except VimeError as e:
        document = {"error": {"kind": e.kind, "message": e.message, "hint": e.hint}}
    json.dump(document, answer)
    answer.close()


if __name__ == "__main__":
    main()
