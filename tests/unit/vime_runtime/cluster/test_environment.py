"""What the actors of a run find in their environment when Ray has started them; there are no NPUs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from vime_runtime.cluster import processes
from vime_runtime.cluster.node import in_order
from vime_runtime.cluster.placement import Placement
from vime_runtime.cluster.ray_cluster import cluster
from vime_runtime.spec.device_layout import engine_devices, trainer_devices
from vime_runtime.spec.errors import WrongEnvironment
from vime_runtime.spec.run_config import RunConfig

VISIBLE = "ASCEND_RT_VISIBLE_DEVICES"
ALLOCATOR = {
    "PYTORCH_NPU_ALLOC_CONF": {"accepts": "expandable_segments:False", "reason": "the memory saver needs it"}
}
NOSET = {"RAY_EXPERIMENTAL_NOSET_ASCEND_RT_VISIBLE_DEVICES": "1"}


class Process:
    """In the place of a trainer rank or an engine: says what it finds, and looks as they do."""

    def __init__(self, config: RunConfig, environment: Any) -> None:
        self._environment = environment

    def found(self, name: str) -> str | None:
        return os.environ.get(name)

    def require(self, change: dict[str, str]) -> None:
        os.environ.update(change)
        self._environment.require("trainer rank 0")


@pytest.fixture(scope="module")
def placement(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Placement]:
    """A Ray of its own on a "node" with four NPUs; the shell, or the image, says otherwise in everything."""
    with pytest.MonkeyPatch.context() as shell:
        for name, value in NOSET.items():
            shell.setenv(name, value)
        shell.setenv(VISIBLE, "12,9,10,11")
        shell.setenv("PYTORCH_NPU_ALLOC_CONF", "expandable_segments:True")
        shell.delenv("RAY_ADDRESS", raising=False)
        scratch = Path("/tmp") / f"vime-test-{os.getpid()}"
        own = {"PYTORCH_NPU_ALLOC_CONF": "expandable_segments:False"}
        yield from _placed(
            {
                "recipe": {
                    "cluster": {"device": "npu", "nodes": 1, "devices_per_node": 4},
                    "rollout": {"tensor_parallel": 2},
                    "model": {"path": str(tmp_path_factory.mktemp("model"))},
                    "memory": {"offload_dir": None},
                    "env": {},
                },
                "run_dir": str(tmp_path_factory.mktemp("run")),
                "scratch_dir": str(scratch),
                "address": None,
                "environment": {
                    "train": {**NOSET, **own, "PYTHONPATH": f"/cann/python/site-packages:{_path()}"},
                    "rollout": {**NOSET, **own},
                },
                "required": {"train": ALLOCATOR, "rollout": ALLOCATOR},
            }
        )


def _path() -> str:
    return os.environ.get("PYTHONPATH", "")


def _placed(document: dict[str, Any]) -> Iterator[Placement]:
    from harness.run_config import make_run_config  # Ray workers import this module without the harness

    with cluster(make_run_config(document)) as placement:
        yield placement
    shutil.rmtree(document["scratch_dir"])
    assert not [child for child in psutil.Process().children() if child.name() in processes.DAEMONS]


def found(placement: Placement, role: str, seats: list[Any], name: str) -> list[str | None]:
    actors = [placement.start(Process, role, seat) for seat in seats]
    return ray.get([actor.found.remote(name) for actor in actors])


def test_under_ray_each_rank_sees_its_npu_and_each_engine_its_own_ascending(placement: Placement) -> None:
    config = placement.config
    assert found(placement, "train", trainer_devices(config.recipe), VISIBLE) == ["9", "10", "11", "12"]
    assert found(placement, "rollout", engine_devices(config.recipe), VISIBLE) == ["9,10", "11,12"]


@pytest.mark.parametrize("role", ["train", "rollout"])
def test_under_ray_the_allocator_setting_overrides_that_of_the_shell(placement: Placement, role: str) -> None:
    seats = trainer_devices(placement.config.recipe)[:1]
    assert found(placement, role, seats, "PYTORCH_NPU_ALLOC_CONF") == ["expandable_segments:False"]


def test_under_ray_actors_have_canns_python_path(placement: Placement) -> None:
    (path,) = found(placement, "train", trainer_devices(placement.config.recipe)[:1], "PYTHONPATH")
    assert path is not None
    assert "/cann/python/site-packages" in path.split(os.pathsep)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"PYTORCH_NPU_ALLOC_CONF": "expandable_segments:True"},
            "trainer rank 0 has PYTORCH_NPU_ALLOC_CONF 'expandable_segments:True', decided was "
            "'expandable_segments:False': the memory saver needs it",
        ),
        (
            {VISIBLE: "9,10"},
            f"trainer rank 0 has {VISIBLE} '9,10', decided was '9': the ranks and engines of a node "
            "each have devices of their own",
        ),
    ],
    ids=["allocator", "devices"],
)
def test_under_ray_an_actor_with_the_wrong_environment_refuses_and_the_driver_learns_why(
    placement: Placement, change: dict[str, str], message: str
) -> None:
    actor = placement.start(Process, "train", trainer_devices(placement.config.recipe)[0])
    ray.get(actor.require.remote({}))
    with pytest.raises(WrongEnvironment) as caught:
        ray.get(actor.require.remote(change))
    assert caught.value.message == message
    assert caught.value.exit_code == 1


def test_devices_are_told_in_ascending_order() -> None:
    assert in_order({"10", "9", "0"}) == ("0", "9", "10")
    assert in_order([3, 1]) == ("1", "3")
    assert in_order({"GPU-b", "2", "GPU-a"}) == ("2", "GPU-a", "GPU-b")
