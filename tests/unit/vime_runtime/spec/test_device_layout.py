from __future__ import annotations

import pytest
from vime_runtime.spec.device_layout import (
    DeviceAssignment,
    engine_devices,
    placement,
    trainer_communicators,
    trainer_devices,
)

from harness.run_config import make_recipe
from vimectl.recipes.resolve import resolve

# nodes, devices on each, devices of an engine
SHAPES = [(1, 1, 1), (1, 2, 2), (1, 4, 2), (2, 1, 1), (2, 2, 1), (2, 4, 2), (3, 2, 2)]


@pytest.mark.parametrize(("nodes", "each", "engine"), SHAPES)
def test_the_dry_run_shows_what_the_runtime_does(nodes: int, each: int, engine: int) -> None:
    assignments = [
        f"cluster.nodes={nodes}",
        f"cluster.devices_per_node={each}",
        f"rollout.tensor_parallel={engine}",
        "train.tensor_parallel=1",
    ]
    recipe = resolve("qwen3-tiny-tp2", assignments=assignments).recipe
    shown = placement(recipe)
    assert [DeviceAssignment(d["node"], (d["device"],)) for d in shown] == trainer_devices(recipe)
    assert [d["train_rank"] for d in shown] == list(range(nodes * each))
    engines: dict[int, list[tuple[int, int]]] = {}
    for device in shown:
        engines.setdefault(device["engine"], []).append((device["node"], device["device"]))
    assert [[(s.node, d) for d in s.devices] for s in engine_devices(recipe)] == list(engines.values())


def test_ranks_and_engines_have_adjacent_devices_of_one_node() -> None:
    cluster = {"nodes": 2, "devices_per_node": 4}
    recipe = make_recipe(cluster=cluster, train={"tensor_parallel": 2}, rollout={"tensor_parallel": 4})
    assert engine_devices(recipe) == [DeviceAssignment(0, (0, 1, 2, 3)), DeviceAssignment(1, (0, 1, 2, 3))]
    rows = placement(recipe)
    assert [row["train_replica"] for row in rows] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [row["engine"] for row in rows] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert [row["engine_rank"] for row in rows] == [0, 1, 2, 3, 0, 1, 2, 3]


@pytest.mark.parametrize(
    ("devices", "tensor", "expert", "expected"),
    [
        (1, 1, 1, 0),
        (2, 2, 1, 1),
        (8, 1, 1, 1),
        (8, 2, 1, 2),
        (8, 2, 2, 2),  # expert-parallel as tensor-parallel
        (8, 2, 8, 3),  # experts over all ranks; replicas as data-parallel
        (8, 2, 4, 5),
    ],
)
def test_groups_of_the_same_ranks_share_a_communicator(
    devices: int, tensor: int, expert: int, expected: int
) -> None:
    train = {"tensor_parallel": tensor, "expert_parallel": expert}
    recipe = make_recipe(cluster={"devices_per_node": devices}, train=train)
    assert trainer_communicators(recipe) == expected
