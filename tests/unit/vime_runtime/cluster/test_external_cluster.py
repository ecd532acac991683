from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import ray
from vime_runtime.cluster import external_cluster
from vime_runtime.spec.errors import MissingRequirement


@contextmanager
def listening(answer: bytes | None) -> Iterator[str]:
    """Accept a connection and send one answer, or none; yield the address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                if answer is not None:
                    connection.sendall(answer)
                else:
                    done.wait()

        done = threading.Event()
        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        done.set()


@pytest.fixture(autouse=True)
def _on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_cluster, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.delenv("RAY_USE_TLS", raising=False)


def test_a_gcs_is_accepted() -> None:
    with listening(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])) as address:
        external_cluster.require_cluster(address)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "something else answers there"),
        (b"", "something else answers there"),
        (None, "no answer within 0.5 s"),
    ],
    ids=["a web server", "closed", "silent"],
)
def test_another_server_is_an_error(answer: bytes | None, problem: str) -> None:
    with listening(answer) as address, pytest.raises(MissingRequirement) as caught:
        external_cluster.require_cluster(address)
    assert caught.value.message == f"no Ray cluster at {address}: {problem}"


def test_a_closed_port_is_an_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"localhost:{unused.getsockname()[1]}"
        with pytest.raises(MissingRequirement, match=f"no Ray cluster at {address}: Connection refused"):
            external_cluster.require_cluster(address)


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (RuntimeError("Version mismatch: The cluster was started with:\n  Ray: 2.9.0"), "with: Ray: 2.9.0"),
        (ConnectionError("no node here"), "no node here"),
    ],
)
def test_the_error_of_ray_is_shown(monkeypatch: pytest.MonkeyPatch, error: Exception, shown: str) -> None:
    def refuse(**arguments: object) -> None:
        raise error

    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(MissingRequirement, match=f"at head:6379 cannot be used: .*{shown}"):
        external_cluster.connect("head:6379", "a namespace")
