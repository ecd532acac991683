"""Connect to sockets as another user: reads one JSON document on stdin and writes one on stdout.

``ports`` are pairs of address and port to call in the ways of Ray. ``paths`` are UNIX sockets, and files with
the prefix "file:". ``token`` is a token for Ray. The answer has what came of each.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import grpc

STRANGER = 65534
SECONDS = 3.0
# A method of each of Ray's servers.
METHODS = (
    "/ray.rpc.JobInfoGcsService/GetAllJobInfo",
    "/ray.rpc.NodeManagerService/GetNodeStats",
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.CoreWorkerService/GetCoreWorkerStats",
)


def call(address: str, port: int, token: str) -> list[str]:
    """Return the states of calls to a server of Ray, or ``refused`` when nothing listens there."""
    try:
        socket.create_connection((address, port), SECONDS).close()
    except OSError as e:
        return ["refused" if e.errno == errno.ECONNREFUSED else str(e)]
    states = []
    with grpc.insecure_channel(f"{address}:{port}") as channel:
        for method in METHODS:
            for metadata in ((), (("authorization", f"Bearer {token}"),)):
                try:
                    channel.unary_unary(method)(b"", timeout=SECONDS, metadata=metadata)
                    states.append("OK")
                except grpc.RpcError as e:
                    states.append(e.code().name)
                if states[-1] in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):  # not a server of Ray
                    return [*states, _http(address, port)]
    return states


def _http(address: str, port: int) -> str:
    """Return the status of an HTTP request; ``silent`` if nothing comes."""
    connection = HTTPConnection(address, port, timeout=SECONDS)
    try:
        connection.request("POST", "/get_or_create_runtime_env", b"")
        return str(connection.getresponse().status)
    except Exception:
        return "silent"
    finally:
        connection.close()


def reach(path: str) -> str:
    """Return ``reached`` if a socket or file can be opened, else the name of the error."""
    try:
        if path.startswith("file:"):
            os.close(os.open(path.removeprefix("file:"), os.O_RDONLY))
        else:
            with socket.socket(socket.AF_UNIX) as one:
                one.connect(path)
    except OSError as e:
        return errno.errorcode[e.errno or 0]
    return "reached"


def main() -> None:
    asked = json.load(sys.stdin)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        # Imports all that a call needs: the other user may not be able to read the files of this Python.
        call("127.0.0.1", silent.getsockname()[1], asked["token"])
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(STRANGER)
        os.setuid(STRANGER)
    with ThreadPoolExecutor(16) as pool:
        ports = list(pool.map(lambda one: call(*one, asked["token"]), asked["ports"]))
    json.dump({"ports": ports, "paths": [reach(path) for path in asked["paths"]]}, sys.stdout)


if __name__ == "__main__":
    main()
