"""A Ray cluster of another user: several raylets on this machine as nodes, and an actor of the owner.

As a script it is the owner: it starts the cluster in an empty folder, answers questions that arrive as
lines of JSON, and ends everything when the questions end.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

NODES = 3
# The NPUs are declared: Ray does not check that they exist, and the placement is the same.
EACH = {"num_cpus": 2, "resources": {"NPU": 2}}
OBJECT_STORE_BYTES = 80 * 1024**2


class ForeignCluster:
    """The cluster, for a test."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="vt-", dir="/tmp"))  # short: it holds sockets
        (self._folder / "ray").mkdir()
        self.token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self._owner = subprocess.Popen(
            [sys.executable, __file__],
            env=os.environ | self.token | {"TMPDIR": str(self._folder), "RAY_TMPDIR": str(self._folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.owner_pid = self._owner.pid
        self.address = self._answer()
        self.environment = os.environ | self.token

    def state(self) -> dict[str, Any]:
        """Return actors and placement groups of other drivers, and the free resources of all nodes."""
        return self._ask("state")

    def occupy(self, cpus: float) -> None:
        """Let actors of the owner use this many CPUs on each node; 0 releases them."""
        self._ask("occupy", cpus)

    def greeting(self) -> str:
        """Return the text of the owner's actor, which changes only if it is started again."""
        return self._ask("greet")

    def close(self) -> None:
        """Shut the cluster down and remove its folder."""
        self._owner.stdin.close()
        self._owner.wait(timeout=60)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _ask(self, *question: Any) -> Any:
        print(json.dumps(question), file=self._owner.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        for line in self._owner.stdout:
            if line.startswith("answer "):
                return json.loads(line.removeprefix("answer "))
        raise RuntimeError("the owner of the cluster has exited")


class Owner:
    """The owner of the cluster, in its own process."""

    def __init__(self) -> None:
        import ray
        from ray.cluster_utils import Cluster

        self._ray = ray
        folder = os.environ["RAY_TMPDIR"]
        arguments = {**EACH, "temp_dir": folder, "object_store_memory": OBJECT_STORE_BYTES}
        self._cluster = Cluster(True, head_node_args={**arguments, "include_dashboard": False})
        for _ in range(NODES - 1):
            self._cluster.add_node(**arguments)
        self.address = self._cluster.address
        ray.init(self.address, namespace="owner", log_to_driver=False, configure_logging=False)

        class Greeter:
            def __init__(self) -> None:
                self._greeting = secrets.token_hex(4)

            def greet(self) -> str:
                return self._greeting

        self._kind = Greeter
        self._greeter = self._actor(0)
        self._occupants: list[Any] = []

    def greet(self) -> str:
        return self._ray.get(self._greeter.greet.remote())

    def occupy(self, cpus: float) -> None:
        for actor in self._occupants:
            self._ray.kill(actor)
        self._occupants = [self._actor(cpus) for _ in range(NODES * bool(cpus))]
        self._ray.get([actor.greet.remote() for actor in self._occupants])

    def state(self) -> dict[str, Any]:
        from ray._private.state import actors
        from ray.util import placement_group_table

        own = {actor._actor_id.hex() for actor in (self._greeter, *self._occupants)}
        living = [a for a in actors().values() if a["State"] != "DEAD" and a["ActorID"] not in own]
        groups = [g for g in placement_group_table().values() if g["state"] != "REMOVED"]
        free = {name: self._ray.available_resources().get(name, 0) for name in ("CPU", "NPU")}
        return {"actors": [a["ActorClassName"] for a in living], "groups": len(groups), "free": free}

    def close(self) -> None:
        self._ray.shutdown()
        self._cluster.shutdown()

    def _actor(self, cpus: float) -> Any:
        return self._ray.remote(self._kind).options(num_cpus=cpus, scheduling_strategy="SPREAD").remote()


def main() -> None:
    owner = Owner()
    print("answer", json.dumps(owner.address), flush=True)
    for line in sys.stdin:
        method, *arguments = json.loads(line)
        print("answer", json.dumps(getattr(owner, method)(*arguments)), flush=True)
    owner.close()


if __name__ == "__main__":
    main()
