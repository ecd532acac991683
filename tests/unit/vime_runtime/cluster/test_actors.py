"""Actors that a real Ray starts on a declared node with NPUs: their environment and their errors."""

from __future__ import annotations

import errno
import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.exceptions import ActorDiedError
from vime_runtime.cluster.groups import EngineGroup, TrainerGroup
from vime_runtime.cluster.placement import Placement
from vime_runtime.cluster.ray_cluster import ray_cluster
from vime_runtime.logging.event_log import EventLog
from vime_runtime.spec.device_layout import engine_devices, trainer_devices
from vime_runtime.spec.errors import WrongEnvironment
from vime_runtime.spec.process_roles import RAY_DAEMONS
from vime_runtime.spec.run_config import RunConfig

VISIBLE = "ASCEND_RT_VISIBLE_DEVICES"
ALLOCATOR = "PYTORCH_NPU_ALLOC_CONF"
NOSET = {"RAY_EXPERIMENTAL_NOSET_ASCEND_RT_VISIBLE_DEVICES": "1"}


# A prompt at which an engine dies.
END = [0]


class Process:
    """An actor in place of a trainer rank or engine."""

    def __init__(self, config: RunConfig, environment: Any) -> None:
        self._environment = environment

    def found(self, name: str) -> str | None:
        return os.environ.get(name)

    def require(self, change: dict[str, str]) -> None:
        os.environ.update(change)
        self._environment.require("trainer rank 0")

    def generate(
        self, prompts: list[list[int]], samples: int, seeds: list[int], temperature: float | None
    ) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """Yield a response for each prompt, its seed and this process; end at the prompt END."""
        self._sampled = 0
        for index in reversed(range(len(prompts))):
            if prompts[index] == END:
                os._exit(7)
            yield index, [(seeds[index], os.getpid())] * samples
            self._sampled += 1

    def sampled(self) -> int:
        return self._sampled

    def call(self, method: str, folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "rank-0-of-1.pt"))


@pytest.fixture(scope="module")
def placement(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Placement]:
    """Start Ray on a "node" with four NPUs, in a shell whose variables all have other values."""
    from harness.run_config import make_run_config  # Ray workers import this module without the harness

    scratch = Path("/tmp") / f"vime-test-{os.getpid()}"
    scratch.mkdir(mode=0o700)
    own = {**NOSET, ALLOCATOR: "expandable_segments:False"}
    cann = f"/cann/python/site-packages:{os.environ.get('PYTHONPATH', '')}"
    required = {ALLOCATOR: {"accepts": "expandable_segments:False", "reason": "the memory saver needs it"}}
    config = make_run_config({
        "recipe": {
            "cluster": {"device": "npu", "nodes": 1, "devices_per_node": 4},
            "rollout": {"tensor_parallel": 2},
            "model": {"path": str(tmp_path_factory.mktemp("model"))},
        },
        "run_dir": str(tmp_path_factory.mktemp("run")),
        "scratch_dir": str(scratch),
        "environment": {"train": {**own, "PYTHONPATH": cann}, "rollout": own},
        "required": {"train": required, "rollout": required},
    })  # fmt: skip
    shell = {**NOSET, VISIBLE: "12,9,10,11", ALLOCATOR: "expandable_segments:True"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in shell.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        with ray_cluster(config, EventLog(Path(config.run_dir), steps=1)) as placement:
            yield placement
    shutil.rmtree(scratch)
    assert not [child for child in psutil.Process().children() if child.name() in RAY_DAEMONS]


@pytest.mark.parametrize(
    ("role", "name", "values"),
    [
        ("train", VISIBLE, ["9", "10", "11", "12"]),
        ("rollout", VISIBLE, ["9,10", "11,12"]),
        ("train", ALLOCATOR, ["expandable_segments:False"]),
        ("rollout", ALLOCATOR, ["expandable_segments:False"]),
    ],
    ids=["NPUs of ranks", "NPUs of engines", "allocator of a rank", "allocator of an engine"],
)
def test_ascending_npus_and_the_allocator_setting_override_the_shell(
    placement: Placement, role: Any, name: str, values: list[str]
) -> None:
    devices = {"train": trainer_devices, "rollout": engine_devices}[role](placement.config.recipe)
    actors = [placement.start(Process, role, device) for device in devices[: len(values)]]
    assert ray.get([actor.found.remote(name) for actor in actors]) == values


def test_actors_have_the_python_path_of_cann(placement: Placement) -> None:
    actor = placement.start(Process, "train", trainer_devices(placement.config.recipe)[0])
    path = ray.get(actor.found.remote("PYTHONPATH"))
    assert "/cann/python/site-packages" in path.split(os.pathsep)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {ALLOCATOR: "expandable_segments:True"},
            f"trainer rank 0 has {ALLOCATOR} 'expandable_segments:True', expected "
            "'expandable_segments:False': the memory saver needs it",
        ),
        (
            {VISIBLE: "9,10"},
            f"trainer rank 0 has {VISIBLE} '9,10', expected '9': each rank and engine of a node has other "
            "devices",
        ),
    ],
    ids=["allocator", "devices"],
)
def test_the_driver_gets_the_error_of_an_actor_with_a_wrong_environment(
    placement: Placement, change: dict[str, str], message: str
) -> None:
    actor = placement.start(Process, "train", trainer_devices(placement.config.recipe)[0])
    ray.get(actor.require.remote({}))
    with pytest.raises(WrongEnvironment) as caught:
        ray.get(actor.require.remote(change))
    assert caught.value.message == message
    assert caught.value.exit_code == 1


class Starter:
    """Starts a Process instead of a trainer rank or engine."""

    def __init__(self, placement: Placement) -> None:
        self.placement = placement
        self.actors: list[Any] = []

    def start(self, kind: type, role: Any, assignment: Any, *args: Any) -> Any:
        self.actors.append(self.placement.start(Process, role, assignment))
        return self.actors[-1]


@pytest.mark.parametrize("method", ["write_state", "save_pretrained"])
def test_a_disk_error_of_a_rank_reaches_the_driver(placement: Placement, method: str) -> None:
    trainer = TrainerGroup(placement.config, Starter(placement))
    with pytest.raises(OSError, match="No space left on device") as caught:
        getattr(trainer, method)(Path("/full"))
    assert caught.value.filename == "/full/rank-0-of-1.pt"


def test_responses_stream_from_all_engines_with_the_index_of_their_prompt(placement: Placement) -> None:
    engine = EngineGroup(placement.config, Starter(placement))
    count = owned_objects()
    for prompts in (5, 1):  # two engines
        found = dict(engine.generate([[1]] * prompts, 2, list(range(prompts))))
        assert [found[i][0][0] for i in range(prompts)] == list(range(prompts))
        assert all(len(samples) == 2 for samples in found.values())
        assert len({pid for samples in found.values() for _, pid in samples}) == min(prompts, 2)
    assert owned_objects() == count  # the driver keeps no response


def owned_objects() -> int:
    """Return the number of objects in Ray that this process refers to."""
    gc.collect()
    return len(ray._private.worker.global_worker.core_worker.get_all_reference_counts())


def test_engines_continue_while_the_driver_scores(placement: Placement) -> None:
    starter = Starter(placement)
    generating = EngineGroup(placement.config, starter).generate([[1]] * 40, 1, list(range(40)))
    next(generating)
    # An actor executes its calls in order: this one after it has sampled everything.
    sampled = ray.get([actor.sampled.remote() for actor in starter.actors], timeout=120)
    assert sampled == [20, 20]
    assert len(list(generating)) == 39


def test_an_engine_that_dies_in_the_middle_raises_its_death(placement: Placement) -> None:
    generating = EngineGroup(placement.config, Starter(placement)).generate(
        [END, [1], [1], [1], [1], [1]], 1, [0] * 6
    )
    found: list[int] = []
    with pytest.raises(ActorDiedError):
        found.extend(index for index, _ in generating)
    assert 0 not in found
