"""The program that starts the workers of a run's own Ray, compared with Ray's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray._private.workers import setup_worker
from vime_runtime.cluster import worker_setup

# Stands in for Ray's default_worker.py.
WORKER = """
import json, os, sys
names = ("PLAIN", "EXPANDED", "UNKNOWN", "INHERITED")
print(json.dumps([sys.argv[1:], {name: os.environ.get(name) for name in names}]))
"""
VARIABLES = {"PLAIN": "a b;'\"", "EXPANDED": "${INHERITED}/x", "UNKNOWN": "x${NOT_SET}"}


def started(program: str, worker: Path, context: dict[str, Any]) -> Any:
    """Return the arguments and variables of a worker that the program starts."""
    options = [
        "--node-id=1 2",
        f"--serialized-runtime-env-context={json.dumps(context)}",
        "--language=PYTHON",
    ]
    done = subprocess.run(
        [sys.executable, program, str(worker), *options, "--runtime-env-hash=-7"],
        env=os.environ | {"INHERITED": "/inherited"},
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "context",
    [
        {"env_vars": VARIABLES, "py_executable": sys.executable, "command_prefix": [], "java_jars": []},
        {"env_vars": VARIABLES, "py_executable": f"env INHERITED=changed {sys.executable}"},
        {
            "env_vars": VARIABLES,
            "py_executable": sys.executable,
            "command_prefix": ["INHERITED=changed", "&&"],
        },
        {},
    ],
    ids=["variables", "another interpreter", "command before it", "nothing"],
)
def test_it_starts_the_worker_that_the_program_of_ray_starts(tmp_path: Path, context: dict[str, Any]) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER, encoding="utf-8")
    assert setup_worker.__file__ is not None
    expected = started(setup_worker.__file__, worker, context)
    assert started(worker_setup.__file__, worker, context) == expected
    assert expected[0] == ["--node-id=1 2", "--runtime-env-hash=-7"]
