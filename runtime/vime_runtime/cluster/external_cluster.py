"""Connecting to a Ray cluster that is somebody else's: bounded in time, and saying what is in the way."""

from __future__ import annotations

import os
import socket

from vime_runtime.spec.errors import MissingRequirement

# A GCS answers within milliseconds; Ray itself would try for minutes.
ANSWER_SECONDS = 5

# A client's first bytes to a gRPC server: RFC 9113, 3.4. The answer begins with a SETTINGS frame as well.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
FRAME_TYPE = 3
SETTINGS = 4

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def connect(address: str, namespace: str) -> None:
    """Become a driver of the cluster whose GCS is at ``address`` ("host:port").

    The user's own token settings are in force (``RAY_AUTH_MODE``, ``RAY_AUTH_TOKEN`` and what Ray keeps
    in the home directory).

    Raises:
        MissingRequirement: Ray refuses.
    """
    import ray

    try:
        ray.init(address=address, namespace=namespace, configure_logging=False, log_to_driver=True)
    except Exception as e:  # Ray raises what it likes: RuntimeError, ConnectionError, its own
        raise MissingRequirement(
            f"the Ray cluster at {address} cannot be used: {' '.join(str(e).split())}",
            "this machine has to be one of its nodes (`ray start --address`), with the Ray and the Python of "
            "the others, and RAY_AUTH_TOKEN that of the cluster if it has one",
        ) from e


def require_answer(address: str) -> None:
    """Look whether a GCS answers at ``address``, before anything is built up.

    Raises:
        MissingRequirement: nothing answers there, or what answers is no GCS.
    """
    if found := obstacle(address):
        raise MissingRequirement(
            f"no Ray cluster at {address}: {found}",
            "give the host:port that `ray start --head` printed; `ray status` shows whether it is up",
        )


def obstacle(address: str) -> str:
    """Why no GCS can be expected at an address; empty when one answers."""
    host, _, port = address.rpartition(":")
    host = _own_address() if host in LOOPBACK else host.strip("[]")
    try:
        with socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
                return ""  # it would want to see a certificate first
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
    """This machine's address as Ray knows it: loopback is replaced by what other nodes can reach, too."""
    import ray  # seconds, which the usual address does not cost

    return ray.util.get_node_ip_address()
