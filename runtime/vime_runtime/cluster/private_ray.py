"""Keep the Ray cluster that a run starts for itself to the processes of the run.

Ray executes code for every process that can connect to it. By default it listens on all interfaces, and
whether it asks for a token depends on the variables and the home directory of the user.
"""

from __future__ import annotations

import os
import secrets
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ray
from ray import _raylet
from ray._private import ray_constants
from ray._private.node import Node
from ray._raylet import Config  # type: ignore[attr-defined]

from vime_runtime.cluster import worker_setup
from vime_runtime.cluster.external_cluster import LOOPBACK
from vime_runtime.spec.errors import WrongEnvironment

# The ports of the processes that serve a raylet, as attributes of RayParams.
_AGENT_PORTS = ("metrics_agent_port", "metrics_export_port", "runtime_env_agent_port")
_start_raylet = Node.start_raylet


def prepare(scratch_dir: Path) -> None:
    """Let the next cluster of this process ask for a new token and listen on the loopback address only.

    The token is in a file of the run's private folder. Every attempt to start Ray has the same one, because
    Ray reads it once in a process.
    """
    path = scratch_dir / "ray-token"
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32))
    os.environ.pop("RAY_AUTH_TOKEN", None)  # of the user's shell; Ray would prefer it
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}
    Config.initialize("")  # Ray read the mode when it was imported
    # Ray does not accept the loopback address as an argument. This is RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0,
    # the default on those systems (get_node_ip_address in ray/_private/services.py, 2.60).
    ray_constants.ENABLE_RAY_CLUSTER = False
    # The autoscaler adds nodes, which this cluster never gets. It listens on a fixed port without a token.
    Node.start_monitor = lambda self: None  # type: ignore[method-assign]
    # These two only serve what a run turns off: the dashboard, and logs that are copied to the driver. Ray
    # starts them all the same, before the raylet.
    Node.start_api_server = lambda self, **unused: None  # type: ignore[method-assign]
    Node.start_log_monitor = lambda self: None  # type: ignore[method-assign]
    Node.start_raylet = _start_raylet_with_ports  # type: ignore[assignment,method-assign]
    ray_constants.SETUP_WORKER_FILENAME = worker_setup.__file__  # an absolute path, which os.path.join keeps


def _start_raylet_with_ports(node: Node, *args: Any, **options: Any) -> None:
    """Start a raylet that does not wait for its agents.

    It waits 15 s for each port that an agent chooses itself, and aborts if the agent starts more slowly, as
    on a busy machine or from a slow file system. It does not wait for ports that it is given, as older
    releases do (NodeManager::WaitForDashboardAgentPorts in src/ray/raylet/node_manager.cc, 2.60).
    """
    parameters = node._ray_params
    with ExitStack() as listening:
        for name in _AGENT_PORTS:
            if not getattr(parameters, name):
                listener = listening.enter_context(socket.create_server(("127.0.0.1", 0)))
                setattr(parameters, name, listener.getsockname()[1])
    if persist := getattr(_raylet, "persist_port", None):
        # services.start_raylet does not give this one. Without a dashboard the agent (ray/dashboard/agent.py)
        # writes -1 itself.
        persist(node.get_session_dir_path(), node.node_id, "dashboard_agent_listen_port", -1)
    _start_raylet(node, *args, **options)


def require_loopback() -> None:
    """Check that Ray listens where other machines cannot connect.

    Raises:
        WrongEnvironment: Ray took another address.
    """
    address = ray.util.get_node_ip_address()
    if address not in LOOPBACK:
        raise WrongEnvironment(
            f"the run's own Ray cluster listens on {address}, which other machines can reach",
            "install the Ray of the stack: `vimectl doctor` compares the versions",
        )
