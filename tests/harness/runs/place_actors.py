"""Place light actors as a run would and print where they are: ``place_actors.py ADDRESS RECIPE``.

RECIPE is JSON: tables of a recipe, at least ``cluster`` and ``rollout``. A refusal is printed as well.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile

import ray
from vime_runtime.cluster import placement as placing
from vime_runtime.cluster.ray_cluster import cluster
from vime_runtime.process_environment import EnvSpec
from vime_runtime.spec.device_layout import engine_devices, trainer_devices
from vime_runtime.spec.errors import VimeError
from vime_runtime.spec.run_config import RunConfig

from harness.run_config import make_run_config


class Light:
    """Stands where a trainer rank or an engine would."""

    def __init__(self, config: dict, environment: EnvSpec) -> None:
        pass

    def where(self) -> dict:
        names = ("CUDA_VISIBLE_DEVICES", "GLOO_SOCKET_IFNAME", "COLOUR")
        node = ray.get_runtime_context().get_node_id()
        return {"node_id": node, "environment": {name: os.environ.get(name) for name in names}}


def run_file(address: str, recipe: dict, scratch: str) -> RunConfig:
    role = {"GLOO_SOCKET_IFNAME": "lo", "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}
    recipe = {
        "model": {"path": scratch},
        "memory": {"offload_dir": None},
        "env": {"COLOUR": "green"},
        **recipe,
    }
    return make_run_config({
        "recipe": recipe,
        "run_dir": scratch,
        "scratch_dir": scratch,
        "address": address,
        "environment": {"train": role, "rollout": role},
        "required": {"train": {}, "rollout": {}},
    })  # fmt: skip


def main(address: str, recipe: str) -> None:
    placing.FREE_SECONDS = 6
    with tempfile.TemporaryDirectory() as scratch:
        config = run_file(address, json.loads(recipe), scratch)
        told: list[str] = []
        try:
            with cluster(config, told.append) as placement:
                ranks = [placement.start(Light, "train", seat) for seat in trainer_devices(config.recipe)]
                engines = [placement.start(Light, "rollout", seat) for seat in engine_devices(config.recipe)]
                found = {
                    "here": ray.get_runtime_context().get_node_id(),
                    "nodes": [node.id for node in placement.nodes],
                    "ranks": ray.get([actor.where.remote() for actor in ranks]),
                    "engines": ray.get([actor.where.remote() for actor in engines]),
                }
        except VimeError as e:
            found = {"exit_code": e.exit_code, "message": e.message}
    print(json.dumps({**found, "told": told}))


if __name__ == "__main__":
    main(*sys.argv[1:])
