"""New weights through the worker extension into each stack's released executor, worker and model classes.

NPU stacks run their released sources on the released torch_npu (worker_probe.py), the CPU stack the installed
packages. The model's first layer has a dense MLP, the second has experts.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import RUNTIME, TESTS, run_script
from harness.npu.machine import COLOCATED, Machine
from harness.upstream import released
from vimectl.stacks.catalog import load_stack

if importlib.util.find_spec("vllm") is None:
    pytest.skip("needs what vllm imports", allow_module_level=True)

# The everyday suite looks at two; `make test` at all.
STACKS = [
    "cpu-0.32",
    "ascend-0.22",
    *(pytest.param(f"ascend-0.{n}", marks=pytest.mark.slow) for n in (20, 30)),
    pytest.param("ascend-0.23", marks=pytest.mark.exhaustive),
]
ENVIRONMENT = {
    "GLOO_SOCKET_IFNAME": "lo",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VIME_COLOCATE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}

pytestmark = pytest.mark.needs("network")


@pytest.fixture(scope="module", params=STACKS)
def seen(
    request: pytest.FixtureRequest,
    make_model: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """The observations of the probe on a stack; "stack" is its name."""
    stack = load_stack(request.param)
    if stack.stack.device == "npu":
        machine = Machine(tmp_path_factory.mktemp("machine") / "npus", chips=1)
        environment = machine.environment(
            *(released.python_sources(*one) for one in released.versions_of(request.param).items()),
            RUNTIME,
            ASCEND_RT_VISIBLE_DEVICES="0",
            VLLM_ASCEND_ENABLE_NZ="0",
            VLLM_PLUGINS="ascend",
            **COLOCATED,
        )
    else:
        path = os.pathsep.join(map(str, (RUNTIME, TESTS)))
        environment = {**os.environ, "PYTHONPATH": path, "VLLM_PLUGINS": "vime_runtime"}
    model = make_model("qwen3_moe", tie_word_embeddings=False, mlp_only_layers=[0])
    seen = run_script(
        "upstream.worker_probe", stack.stack.device, model, environment=environment | ENVIRONMENT
    )
    return {"stack": request.param, **seen}


def test_the_extension_is_mixed_into_the_released_worker(seen: dict[str, Any]) -> None:
    npu = seen["stack"].startswith("ascend")
    assert seen["worker"] == ("vllm_ascend.worker.worker" if npu else "vllm.v1.worker.cpu_worker")
    assert seen["last base"] == "WorkerExtension"


def test_weights_are_as_vllms_own_loader_makes_them(seen: dict[str, Any]) -> None:
    assert seen["changed"] == seen["lost"] == seen["parameters"]  # by other weights, and by sleeping
    assert seen["differing"] == []
    assert not seen["moved"]


def test_expert_parameters_have_their_weight_loader(seen: dict[str, Any]) -> None:
    assert [name for name in seen["without loader"] if "experts" in name] == []


def test_the_layerwise_reload_is_skipped(seen: dict[str, Any]) -> None:
    assert seen["reloads"] == 0


def test_an_incomplete_update_names_the_missing_tensors_and_can_be_completed(seen: dict[str, Any]) -> None:
    assert seen["incomplete"] == f"ValueError: the weight update lacks 1 of 47 tensors: {seen['last tensor']}"
    assert seen["completed"]


def test_an_update_after_a_failed_one_succeeds(seen: dict[str, Any]) -> None:
    assert "model.norm.weight of the weight update has the shape [7]" in seen["misshapen"]
    assert seen["after a failure"] == []
