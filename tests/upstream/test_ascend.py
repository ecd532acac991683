"""The series of the Ascend stacks, on the real sources of each release, released and patched.

One process for each stack imports the released vLLM and vllm-ascend on the released torch_npu over stand-ins
for CANN, and runs the functions under test in every situation (ascend_probe.py).
"""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from harness import RUNTIME, run_script
from harness.npu.machine import Machine
from harness.upstream import released
from vimectl.patches import series
from vimectl.stacks.catalog import load_stack

if importlib.util.find_spec("vllm") is None:
    pytest.skip("needs what vllm imports", allow_module_level=True)

GIB = 1 << 30
TOTAL, UTILIZATION, WEIGHTS, PEAK, HCCL, GRAPHS = 64 * GIB, 0.6, 8 * GIB, 3 * GIB, GIB, 2 * GIB
# The everyday suite has one, `make test` also the oldest and the newest.
_ALL = released.ascend_stacks()
STACKS = [
    "ascend-0.22",
    *(
        pytest.param(name, marks=pytest.mark.slow if name in (_ALL[0], _ALL[-1]) else pytest.mark.exhaustive)
        for name in _ALL
        if name != "ascend-0.22"
    ),
]
NOT_COLOCATED = ("None", "0", "true")
NEIGHBORS = ("0 +0", "10 +0", "10 +5", "10 -10", "40 +0", "40 -30", "0 +20")

pytestmark = pytest.mark.needs("network")


@pytest.fixture(scope="module", params=STACKS)
def probed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The observations of the probe on a stack; "stack" is its name."""
    sources = [released.python_sources(*one) for one in released.versions_of(request.param).items()]
    machine = Machine(tmp_path_factory.mktemp("machine") / "npus", chips=1)
    environment = machine.environment(
        *sources,
        RUNTIME,
        VLLM_ASCEND_ENABLE_NZ="0",  # as for every engine of a run
        VLLM_LOGGING_LEVEL="ERROR",
        OMP_NUM_THREADS="1",
    )
    tree = released.patched_sources(request.param, tmp_path_factory.mktemp("patched"))
    return {"stack": request.param, **run_script("upstream.ascend_probe", tree, environment=environment)}


def alone(stack_name: str, moved: int = 0) -> int:
    """Return the budget of the release, which charges the worker for memory that other processes took."""
    graphs = GRAPHS if stack_name in ("ascend-0.21", "ascend-0.22") else 0
    return int(TOTAL * UTILIZATION) - WEIGHTS - PEAK - HCCL - graphs - moved * GIB


def test_not_colocated_start_up_is_that_of_the_release(probed: dict[str, Any]) -> None:
    released, patched = probed["worker"]["released"], probed["worker"]["patched"]
    for value in NOT_COLOCATED:
        for neighbor in NEIGHBORS:
            assert patched[f"{value} {neighbor}"] == released[f"{value} {neighbor}"]
        assert patched[f"{value} 10 +0"] == alone(probed["stack"])
        assert patched[f"{value} 10 +5"] == alone(probed["stack"], 5)
        assert "Error in memory profiling" in patched[f"{value} 10 -10"]
        assert "on startup is less than desired" in patched[f"{value} 40 +0"]


def test_release_does_not_start_colocated(probed: dict[str, Any]) -> None:
    released = probed["worker"]["released"]
    assert "Error in memory profiling" in released["1 10 -10"]
    assert "on startup is less than desired" in released["1 40 -30"]


def test_colocated_budget_ignores_memory_of_other_processes(
    probed: dict[str, Any],
) -> None:
    budgets = {probed["worker"]["patched"][f"1 {neighbor}"] for neighbor in NEIGHBORS}
    assert budgets == {int(TOTAL * UTILIZATION) - WEIGHTS - PEAK}


def test_flash_attn_is_not_imported_on_an_npu(probed: dict[str, Any]) -> None:
    released, patched = probed["rotary"]["released"], probed["rotary"]["patched"]
    assert {key: patched[key] for key in patched if key.startswith("npu")} == {
        "npu none": None,
        "npu for CUDA": None,
        "npu stand-in": None,
        "npu whole": None,
    }
    assert released["npu for CUDA"] == "ImportError"  # which ends the worker
    assert released["npu whole"] == "flash_attn.ops.triton.rotary"


def test_flash_attn_is_used_on_other_platforms(probed: dict[str, Any]) -> None:
    released, patched = probed["rotary"]["released"], probed["rotary"]["patched"]
    others = [key for key in patched if not key.startswith("npu")]
    assert {key: patched[key] for key in others} == {key: released[key] for key in others}
    assert patched["cuda whole"] == "flash_attn.ops.triton.rotary"


# Tokens and placeholders at the end: -1 is a token from before the weight update, 99 the first after it.
RIGHT = {
    "undisturbed": [[900, 901, 100, 101], 0],
    "restarted_with_none_in_flight": [[900, 100, 101, 102], 0],
    "restarted_with_one_in_flight": [[900, 99, 100, 101], 0],
    "restarted_with_two_in_flight": [[99, 100, 101], 0],
    "restarted_twice": [[100, 101], 0],
    "restarted_with_rejected_drafts": [[900, 99, 100, 101, 102, 103, 104, 105], 0],
    "aborted_and_added_again": [[99, 100, 101], 0],
    "aborted_with_another": [[900, 901, 100, 101], 0],
}
# What goes wrong in the releases of vLLM: the assertion, or tokens that are lost.
_TO_0_21 = {
    "restarted_with_none_in_flight": [[900, 101, 102], 1],
    "restarted_with_two_in_flight": "AssertionError",
    "restarted_twice": "AssertionError",
    "restarted_with_rejected_drafts": "AssertionError",
    "aborted_and_added_again": "AssertionError",
}
_TO_0_24 = {
    "restarted_twice": "AssertionError",
    "restarted_with_rejected_drafts": [[900, 102, 103, 104, 105], 0],
    "aborted_and_added_again": "AssertionError",
}
# An id that is used twice, which vLLM itself prevents.
_FROM_0_26 = {"aborted_and_added_again": "AssertionError"}
WRONG: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("0.18.0", "0.19.1", "0.20.2", "0.21.0"), _TO_0_21),
    **dict.fromkeys(("0.22.1", "0.23.0", "0.24.0"), _TO_0_24),
    "0.25.1": _TO_0_24 | {"restarted_with_rejected_drafts": [[900, 102, 103, 104, 105], 9]},
    **dict.fromkeys(("0.26.0", "0.27.1", "0.28.0", "0.29.0", "0.30.0"), _FROM_0_26),
}


def test_output_from_before_a_restart_is_discarded(probed: dict[str, Any]) -> None:
    stack = load_stack(probed["stack"])
    wrong = WRONG[stack.packages["vllm"]]
    assert probed["scheduler"]["released"] == RIGHT | wrong
    unneeded = "stale-async-output" in series.load("vllm", stack.patches["vllm"][0]).unneeded
    assert probed["scheduler"]["patched"] == (RIGHT | wrong if unneeded else RIGHT)
