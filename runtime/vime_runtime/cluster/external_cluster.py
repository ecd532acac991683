"""Connect to an existing Ray cluster of the user, with a time limit and messages for the user."""

from __future__ import annotations

import os
import socket

from vime_runtime.spec.errors import MissingRequirement

# Seconds to wait for an answer. A GCS answers within milliseconds; Ray itself would try for minutes.
ANSWER_SECONDS = 5

# The first bytes from a client to a gRPC server: RFC 9113, 3.4. The answer starts with a SETTINGS frame too:
# three bytes of length, then the type.
SETTINGS = b"\x04"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + SETTINGS + bytes(5)

LOOPBACK = ("localhost", "127.0.0.1", "::1")


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
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if host in LOOPBACK:
        # Ray listens on the address that other nodes can reach too.
        from ray.util import get_node_ip_address  # takes seconds to import; other addresses do not need it

        host = get_node_ip_address()
    problem = "something else answers there"
    try:
        with socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS) as connection:
            if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
                return  # it would require a certificate first
            connection.sendall(PREFACE)
            if connection.recv(4)[3:] == SETTINGS:
                return
    except TimeoutError:
        problem = f"no answer within {ANSWER_SECONDS} s"
    except OSError as e:
        problem = e.strerror or str(e)
    raise MissingRequirement(
        f"no Ray cluster at {address}: {problem}",
        "give the host:port that `ray start --head` printed; `ray status` shows whether it is up",
    )
