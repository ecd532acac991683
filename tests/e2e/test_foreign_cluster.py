"""Runs on several nodes of an existing Ray cluster: placement, refusals, and what is left afterwards."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import TESTS, run_script
from harness.runs.foreign_cluster import NODES, ForeignCluster
from harness.runs.recipe_run import run_recipe
from harness.tolerances import LOGPROB_FP32

# The state without actors and placement groups of runs.
NOTHING = {"actors": [], "groups": 0, "free": {"CPU": 2 * NODES, "NPU": 2 * NODES}}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def foreign() -> Iterator[ForeignCluster]:
    cluster = ForeignCluster()
    yield cluster
    cluster.close()


@pytest.fixture(autouse=True)
def _cluster_is_unchanged(foreign: ForeignCluster) -> Iterator[None]:
    greeting = foreign.greeting()
    yield
    assert foreign.greeting() == greeting
    deadline = time.monotonic() + 10
    while (state := foreign.state()) != NOTHING:
        assert time.monotonic() < deadline, state
        time.sleep(0.2)


def place(
    foreign: ForeignCluster, device: str, nodes: int, each: int, engine: int, **tables: Any
) -> dict[str, Any]:
    recipe = {
        "cluster": {"device": device, "nodes": nodes, "devices_per_node": each},
        "rollout": {"tensor_parallel": engine},
        **tables,
    }
    environment = foreign.environment | {"PYTHONPATH": str(TESTS)}
    return run_script("runs.place_actors", foreign.address, json.dumps(recipe), environment=environment)


def test_ranks_and_engines_are_placed_node_by_node(foreign: ForeignCluster) -> None:
    found = place(foreign, "npu", nodes=3, each=2, engine=2)
    first, second, third = found["nodes"]
    assert first == found["here"]  # rank 0 saves the model where the launcher expects it
    assert len({first, second, third}) == 3
    ranks, engines = found["ranks"], found["engines"]
    assert [a["node_id"] for a in ranks] == [first, first, second, second, third, third]
    assert [a["environment"]["ASCEND_RT_VISIBLE_DEVICES"] for a in ranks] == ["0", "1"] * 3
    assert [a["node_id"] for a in engines] == [first, second, third]
    assert {a["environment"]["ASCEND_RT_VISIBLE_DEVICES"] for a in engines} == {"0,1"}
    assert {a["environment"]["COLOR"] for a in ranks + engines} == {"green"}
    assert {a["environment"]["GLOO_SOCKET_IFNAME"] for a in engines} == {"lo"}
    assert "lo" not in {a["environment"]["GLOO_SOCKET_IFNAME"] for a in ranks}


def test_request_beyond_the_cluster_is_refused_at_once(foreign: ForeignCluster) -> None:
    found = place(foreign, "cpu", nodes=2, each=4, engine=1)
    assert found["exit_code"] == 3
    assert found["message"].startswith("the run needs 2 nodes with 4 CPUs each; found: node ")
    assert found["message"].count(" 2 CPUs (2 free)") == NODES
    assert found["reported"] == []


def test_node_without_the_model_is_named(foreign: ForeignCluster) -> None:
    found = place(foreign, "cpu", nodes=2, each=1, engine=1, model={"path": "/nowhere"})
    assert found["exit_code"] == 3
    assert found["message"].endswith(" does not have /nowhere")


def test_resources_in_use_are_waited_for(foreign: ForeignCluster) -> None:
    foreign.occupy(1)
    try:
        found = place(foreign, "cpu", nodes=2, each=2, engine=1)
    finally:
        foreign.occupy(0)
    assert found["exit_code"] == 3
    assert "2 nodes with 2 free CPUs each, and waited 6 s for them" in found["message"]
    assert found["message"].count(" 2 CPUs (1 free)") == NODES
    assert found["reported"][0].startswith("waiting until it has 2 nodes with 2 free CPUs each; found: node ")


def test_run_on_two_nodes(foreign: ForeignCluster, tmp_path: Path) -> None:
    """The trainer has TP=2 across the nodes, and each node has an engine."""
    run = run_recipe(
        tmp_path / "run",
        *("--mode", "smoke", "--address", foreign.address),
        *("--set", "cluster.nodes=2", "--set", "cluster.devices_per_node=1"),
        *("--set", "rollout.tensor_parallel=1", "--set", "modes.smoke.steps=2"),
        *("--set", "model.dtype=float32"),
        environment=foreign.environment,
    )
    assert run.code == 0, run.output
    assert [row["step"] for row in run.metrics] == [1, 2]
    assert max(row["logprob/abs_diff_mean"] for row in run.metrics) <= LOGPROB_FP32
    assert json.loads((run.directory / "resolved.json").read_text())["address"] == foreign.address
    assert (run.directory / "checkpoints" / "final" / "model.safetensors").is_file()


def test_address_without_a_cluster(tmp_path: Path) -> None:
    run = run_recipe(tmp_path / "run", "--address", "127.0.0.1:1")
    assert run.code == 3
    assert "no Ray cluster at 127.0.0.1:1: Connection refused" in run.summary["reason"]
    assert "`ray start --head`" in run.output
