"""Our adapters to vLLM's weight-transfer API, in the worker classes that were released.

Of each release the few files that make the API are read, and run in one process with stand-ins for what they
import (transfer_probe.py). test_ascend.py runs the same where all of a release is there.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest

from harness import RUNTIME, TESTS, script
from harness.upstream import released

if importlib.util.find_spec("torch") is None:
    pytest.skip("needs torch", allow_module_level=True)

PROBE = script("upstream.transfer_probe")
API = [f"vllm/distributed/weight_transfer/{name}.py" for name in ("__init__", "base", "factory")]
WORKERS = {"vllm": "vllm/v1/worker/gpu_worker.py", "vllm-ascend": "vllm_ascend/worker/worker.py"}

FLAGGED = ["start_weight_update(is_checkpoint_format=False)", "update_weights()", "update_weights()"]
OWNED = ["start_weight_update()", "update_weights()", "update_weights()"]
END = ["finish_weight_update()"]

# Whose worker, of which release, with which vLLM: the generation of the API, and the calls in the worker.
EXPECTED = {
    ("vllm-ascend", "0.20.2rc1", "0.20.2"): ("rpc", "rpc", []),
    ("vllm-ascend", "0.21.0rc1", "0.21.0"): ("rpc", "rpc", []),
    ("vllm-ascend", "0.22.1rc1", "0.22.1"): ("flagged", "flagged", FLAGGED + END),
    ("vllm-ascend", "0.23.0", "0.23.0"): ("flagged", "flagged", FLAGGED + END),
    ("vllm-ascend", "0.24.0rc1", "0.24.0"): ("flagged", "flagged", FLAGGED + END),
    # The same release with the other shape that it takes.
    ("vllm-ascend", "0.24.0rc1", "0.25.1"): ("owned", "flagged", FLAGGED + END),
    ("vllm-ascend", "0.25.1rc1", "0.25.1"): ("owned", "flagged", FLAGGED + END),
    ("vllm-ascend", "0.26.0rc1", "0.26.0"): ("stateful", "flagged", FLAGGED + END),
    ("vllm-ascend", "0.27.1rc1", "0.27.1"): ("stateful", "owned", OWNED + END),
    ("vllm-ascend", "0.30.0rc2", "0.30.0"): ("stateful", "owned", OWNED + END),
    ("vllm", "0.22.1", "0.22.1"): ("flagged", "flagged", FLAGGED + END),
    ("vllm", "0.24.0", "0.24.0"): ("flagged", "flagged", FLAGGED + END),
    ("vllm", "0.25.1", "0.25.1"): ("owned", "owned", OWNED + END),
    ("vllm", "0.26.0", "0.26.0"): ("stateful", "owned", OWNED + END),
    ("vllm", "0.32.0", "0.32.0"): ("stateful", "owned", OWNED + END),
}

pytestmark = pytest.mark.needs("network")


def name_of(one: tuple[str, str, str]) -> str:
    package, version, vllm = one
    return f"{package} {version} with vllm {vllm}"


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What the probe saw, by release."""
    root = tmp_path_factory.mktemp("releases")
    trees = []
    for one in EXPECTED:
        package, version, vllm = one
        trees.append(root / name_of(one))
        shutil.copytree(released.few_files("vllm", vllm, API), trees[-1])
        shutil.copytree(
            released.few_files(package, version, [WORKERS[package]]), trees[-1], dirs_exist_ok=True
        )
        (trees[-1] / "VERSION").write_text(vllm)
    done = subprocess.run(
        [sys.executable, PROBE, *trees],
        env={**os.environ, "PYTHONPATH": f"{RUNTIME}{os.pathsep}{TESTS}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(params=EXPECTED, ids=name_of)
def seen(request: pytest.FixtureRequest, observed: dict[str, dict[str, Any]]) -> dict[str, Any]:
    found = observed[name_of(request.param)]
    assert "error" not in found, f"{name_of(request.param)}: {found['error']}"
    return {"release": request.param, **found}


def test_the_adapter_is_that_of_what_the_release_has(seen: dict[str, Any]) -> None:
    generation, route, calls = EXPECTED[seen["release"]]
    assert (seen["generation"], seen["route"], seen["calls"]) == (generation, route, calls)
    assert seen["engine"] == (None if route == "rpc" else generation)


def test_weights_arrive_update_after_update(seen: dict[str, Any]) -> None:
    assert seen["updated"]
    assert seen["again"]


def test_the_layerwise_reload_is_skipped(seen: dict[str, Any]) -> None:
    assert seen["reloads"] == 0


def test_an_update_that_lacks_tensors_names_them_and_can_be_completed(seen: dict[str, Any]) -> None:
    assert seen["incomplete"] == "ValueError: the weight update lacks 1 of 2 tensors: proj.weight"
    assert seen["completed"]


def test_after_an_update_that_failed_another_one_succeeds(seen: dict[str, Any]) -> None:
    assert "norm.weight of the weight update has the shape [7]" in seen["misshapen"]
    assert seen["after a failure"]
    assert seen["after one left open"]
