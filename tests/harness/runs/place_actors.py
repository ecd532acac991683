"""Place small actors as a run would and print where they are: ``place_actors.py ADDRESS RECIPE``.

RECIPE is JSON: tables of a recipe, at least ``cluster`` and ``rollout``. An error is printed as well.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import ray
from vime_runtime.cluster import placement
from vime_runtime.cluster.ray_cluster import ray_cluster
from vime_runtime.logging.event_log import EventLog
from vime_runtime.process_environment import EnvSpec
from vime_runtime.spec.device_layout import VISIBLE_DEVICES, engine_devices, trainer_devices
from vime_runtime.spec.errors import VimeError
from vime_runtime.spec.run_config import RunConfig
from vime_runtime.spec.run_paths import RunPaths

from harness.run_config import make_run_config


class SmallActor:
    """An actor in place of a trainer rank or engine."""

    def __init__(self, config: RunConfig, env_spec: EnvSpec) -> None:
        pass

    def where(self) -> dict[str, Any]:
        names = (VISIBLE_DEVICES, "GLOO_SOCKET_IFNAME", "COLOR")
        node = ray.get_runtime_context().get_node_id()
        return {"node_id": node, "environment": {name: os.environ.get(name) for name in names}}


def run_config(address: str, recipe: dict[str, Any], scratch: str) -> RunConfig:
    role = {"GLOO_SOCKET_IFNAME": "lo", "RAY_EXPERIMENTAL_NOSET_ASCEND_RT_VISIBLE_DEVICES": "1"}
    recipe = {
        "model": {"path": scratch},
        "memory": {"offload_dir": None},
        "env": {"COLOR": "green"},
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
    placement.FREE_SECONDS = 6
    with tempfile.TemporaryDirectory() as scratch:
        config = run_config(address, json.loads(recipe), scratch)
        log = EventLog(Path(scratch), steps=1)
        try:
            with ray_cluster(config, log) as placed:
                ranks = [placed.start(SmallActor, "train", each) for each in trainer_devices(config.recipe)]
                engines = [
                    placed.start(SmallActor, "rollout", each) for each in engine_devices(config.recipe)
                ]
                found = {
                    "here": ray.get_runtime_context().get_node_id(),
                    "nodes": [node.id for node in placed.nodes],
                    "ranks": ray.get([actor.where.remote() for actor in ranks]),
                    "engines": ray.get([actor.where.remote() for actor in engines]),
                }
        except VimeError as e:
            found = {"exit_code": e.exit_code, "message": e.message}
        events = [json.loads(line) for line in RunPaths(Path(scratch)).events.read_text().splitlines()]
    reported = [event["detail"] for event in events if event["kind"] == "phase"]
    print(json.dumps({**found, "reported": reported}))


if __name__ == "__main__":
    main(*sys.argv[1:])
