from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import psutil
import pytest
from torch.distributed import TCPStore
from vime_runtime.trainer import rank_store

SECRET = bytes(range(32))


@pytest.fixture
def server() -> tuple[rank_store.SignedStore, TCPStore]:
    """The store of a rank on several nodes, and that of a stranger who connected to the same server."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    ours = rank_store.connect(f"tcp://127.0.0.1:{port}", SECRET, 2, listener)
    return ours, TCPStore("127.0.0.1", port, is_master=False, wait_for_workers=False)


def write(store: Any, key: str, value: str | bytes) -> None:
    """Set a key, and wait for an answer: only the requests of one client are in order."""
    store.set(key, value)
    assert store.check([key])


def test_ranks_with_the_secret_read_what_another_wrote(server: Any) -> None:
    ours, stranger = server
    other = rank_store.connect(f"tcp://127.0.0.1:{stranger.port}", SECRET, 2)
    ours.set("rank 0", b"\x00address")
    ours.set("text", "plain")
    other.wait(["rank 0", "text"])
    assert other.check(["rank 0"])
    assert other.get("rank 0") == b"\x00address"
    assert other.get("text") == b"plain"
    assert ours.add("count", 2) + other.add("count", 1) == 5
    assert other.delete_key("text")
    assert not ours.check(["text"])


def test_the_server_is_bound_to_the_address_of_the_node_only(server: Any) -> None:
    _, stranger = server
    listening = [
        connection.laddr.ip
        for connection in psutil.Process().net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == stranger.port
    ]
    assert listening == ["127.0.0.1"]


def test_a_stranger_learns_no_name_and_no_rank_reads_what_he_wrote(server: Any) -> None:
    ours, stranger = server
    write(ours, "cpu//0/0", b"address of rank 0")
    write(stranger, "cpu//0/1", "address of the stranger")
    assert not ours.check(["cpu//0/1"])
    names = [name for name in stranger.list_keys() if name != "cpu//0/1"]
    assert len(names) == 1
    assert "cpu" not in names[0]

    write(stranger, names[0], "address of the stranger, long enough for a signature and an address")
    with pytest.raises(RuntimeError, match="'cpu//0/0' that no rank of this run wrote"):
        ours.get("cpu//0/0")
    write(stranger, names[0], "short")
    with pytest.raises(RuntimeError, match="no rank of this run wrote"):
        ours.get("cpu//0/0")


def test_a_signed_value_is_refused_under_another_key(server: Any) -> None:
    ours, stranger = server
    write(ours, "rank 0", b"address of rank 0")
    (first,) = stranger.list_keys()
    write(ours, "rank 1", b"address of rank 1")
    (second,) = set(stranger.list_keys()) - {first}
    write(stranger, second, stranger.get(first).decode("latin-1").encode("latin-1"))
    with pytest.raises(RuntimeError, match="'rank 1'"):
        ours.get("rank 1")


def test_on_one_node_the_ranks_meet_in_a_file(tmp_path: Path) -> None:
    before = psutil.Process().net_connections("inet")
    path = tmp_path / "with # and % in it"
    first, second = (rank_store.connect(f"file://{path}", b"", 2) for _ in range(2))
    first.set("rank 0", "address")
    assert second.get("rank 0") == b"address"
    assert path.stat().st_size > 0
    assert psutil.Process().net_connections("inet") == before


def count_listeners(rank: int, world_size: int, file: str, tensor_parallel: int) -> list[str]:
    """Start the groups of a trainer; return the addresses on which this process then listens."""
    from vime_runtime.trainer import parallel

    own = psutil.Process()
    before = set(own.net_connections("inet"))
    parallel.start(
        "gloo", rank, world_size, rank_store.connect(f"file://{file}", b"", world_size), tensor_parallel
    )
    found = set(own.net_connections("inet")) - before
    parallel.stop()
    return [connection.laddr.ip for connection in found if connection.status == psutil.CONN_LISTEN]


@pytest.mark.parametrize("tensor_parallel", [1, 2])
def test_a_rank_listens_on_loopback_once_for_each_group(
    ranks: Any, tensor_parallel: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All ranks; those that share a model or a shard of one; this rank alone.
    for listening in ranks.run(count_listeners, 2, tensor_parallel):
        assert len(listening) == 3
