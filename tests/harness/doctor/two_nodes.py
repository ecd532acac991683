"""A Ray cluster of two nodes on this machine, each of which the doctor examines as another described machine.

The processes that a raylet starts get the machine from the environment of the raylet, by way of
``sitecustomize``: the report of a node then examines that machine, and its clock is off as much as given.

As a script this is the owner of the cluster: it starts the nodes in an empty folder, prints where they are,
and ends everything when its input ends.
"""

from __future__ import annotations

import json
import os
import pickle
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import TESTS
from harness.doctor.described_machine import CONFIG, GALLERY, Machine

ADDRESSES = ("127.0.0.2", "127.0.0.3")
OBJECT_STORE_BYTES = 80 * 1024**2
# The variables of a raylet with its machine, pickled, and with the error of its clock in seconds.
MACHINE, CLOCK = "DESCRIBED_MACHINE", "DESCRIBED_CLOCK"
SITECUSTOMIZE = f"""\
import os, sys
if {MACHINE!r} in os.environ and "vimectl.doctor.node_report" in sys.orig_argv:
    from harness.doctor.two_nodes import become_described
    become_described()
elif any(word.endswith("default_worker.py") for word in sys.orig_argv):
    from time import time
    sys.modules["time"].time = lambda: time() + float(os.environ.get({CLOCK!r}, 0))
"""


class TwoNodes:
    """The cluster, for a test."""

    def __init__(self, machines: Sequence[Machine], clocks: Sequence[float] = (0, 0)) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="vt-", dir="/tmp"))  # short: it has sockets
        (self._folder / "ray").mkdir()
        (self._folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
        nodes = []
        for address, machine, clock in zip(ADDRESSES, machines, clocks, strict=True):
            file = self._folder / address
            file.write_bytes(pickle.dumps(machine))
            own = {MACHINE: str(file), CLOCK: str(clock)}
            nodes.append({"node_ip_address": address, "env_vars": own})
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self._owner = subprocess.Popen(
            [sys.executable, "-m", "harness.doctor.two_nodes", json.dumps(nodes)],
            env=os.environ
            | token
            | {
                "PYTHONPATH": f"{self._folder}:{TESTS}",
                "RAY_TMPDIR": str(self._folder),
                "TMPDIR": str(self._folder),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._owner.stdout is not None
        answer: dict[str, Any] = next(
            json.loads(line.removeprefix("answer "))
            for line in self._owner.stdout
            if line.startswith("answer ")
        )
        self.address: str = answer["address"]
        self.raylets: list[int] = answer["raylets"]
        self.environment = os.environ | token

    def close(self) -> None:
        """Shut the cluster down and remove its folder."""
        self._owner.communicate(timeout=60)
        shutil.rmtree(self._folder, ignore_errors=True)


def become_described() -> None:
    """Let ``Host()`` in the main module of this process be the machine that the environment names."""
    from vimectl.patches import series
    from vimectl.util.host import Host

    machine: Machine = pickle.loads(Path(os.environ[MACHINE]).read_bytes())
    host, initialize = machine.host, Host.__init__
    own = {name: value for name, value in os.environ.items() if name.startswith(("HCCL_", "VLLM_"))}

    def described(self: Host, *args: Any, **kwargs: Any) -> None:
        if sys._getframe(1).f_globals["__name__"] == "__main__" and not (args or kwargs):
            args = (host.root, {**host.environment, **own}, host.run)
        initialize(self, *args, **kwargs)

    Host.__init__ = described  # type: ignore[method-assign]
    series.data_dir = GALLERY.joinpath
    os.environ["XDG_CONFIG_HOME"] = str(machine.path(CONFIG))


def main() -> None:
    """Own the cluster until the input ends."""
    import ray
    from ray.cluster_utils import Cluster

    cluster, arguments = None, {"temp_dir": os.environ["RAY_TMPDIR"], "num_cpus": 1}
    nodes = []
    for one in json.loads(sys.argv[1]):
        own = {**arguments, **one, "object_store_memory": OBJECT_STORE_BYTES}
        if cluster is None:
            cluster = Cluster(True, head_node_args={**own, "include_dashboard": False})
            nodes.append(cluster.head_node)
        else:
            nodes.append(cluster.add_node(**own))
    ray.init(cluster.address, log_to_driver=False, configure_logging=False)
    while len(ray.nodes()) < len(nodes):
        time.sleep(0.1)
    raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
    print("answer", json.dumps({"address": cluster.address, "raylets": raylets}), flush=True)
    sys.stdin.read()
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
