"""Connect to an existing Ray cluster of the user, with a time limit and messages for the user."""

from __future__ import annotations

import os
import socket

from vime_runtime.spec.errors import MissingRequirement

# Seconds to wait for an answer. A GCS answers within milliseconds; Ray itself would try for minutes.
ANSWER_SECONDS = 5

# The first bytes from a client to a gRPC server: RFC 9113, 3.4. The answer starts with a SETTINGS frame too.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
FRAME_TYPE = 3
SETTINGS = 4

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def connect(address: str, namespace: str) -> None:
    """Become a driver of the cluster whose GCS is at ``address`` ("host:port").

    The token settings of the user apply (``RAY_AUTH_MODE``, ``RAY_AUTH_TOKEN`` and what Ray keeps in the
    home directory).

    Raises:
        MissingRequirement: Ray refuses.
    """
    import ray

    try:
        ray.init(address=address, namespace=namespace, configure_logging=False, log_to_driver=True)
    except Exception as e:  # RuntimeError, ConnectionError or a class of Ray's
        raise MissingRequirement(
            f"the Ray cluster at {address} cannot be used: {' '.join(str(e).split())}",
            "this machine has to be one of its nodes (`ray start --address`), with the Ray and the Python of "
            "the others, and RAY_AUTH_TOKEN that of the cluster if it has one",
        ) from e


def require_cluster(address: str) -> None:
    """Check that a GCS answers at ``address``, before anything is built.

    Raises:
        MissingRequirement: nothing answers there, or what answers is not a GCS.
    """
    if problem := connection_problem(address):
        raise MissingRequirement(
            f"no Ray cluster at {address}: {problem}",
            "give the host:port that `ray start --head` printed; `ray status` shows whether it is up",
        )


def connection_problem(address: str) -> str:
    """Return why no GCS answers at an address, or ""."""
    host, _, port = address.rpartition(":")
    host = _own_address() if host in LOOPBACK else host.strip("[]")
    try:
        with socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
                return ""  # it would require a certificate first
            connection.sendall(PREFACE)
            answer = connection.recv(9)
    except TimeoutError:
        return f"no answer within {ANSWER_SECONDS} s"
    except OSError as e:
        return e.strerror or str(e)
    if len(answer) <= FRAME_TYPE or answer[FRAME_TYPE] != SETTINGS:
        return "something else answers there"
    return ""


def _own_address() -> str:
    """Return this machine's address as Ray knows it, which other nodes can reach too, unlike loopback."""
    from ray.util import get_node_ip_address  # takes seconds to import; other addresses do not need it

    address: str = get_node_ip_address()
    return address
