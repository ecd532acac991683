"""The store in which the trainer ranks exchange the addresses of their connections.

A process that can write to it decides to whom the ranks connect. On one node the store is a file in the run's
private folder, and nothing listens. On several nodes it is torch's server in the process of rank 0, bound to
the address of its node. That server does not authenticate its clients, and it lists its keys to all of them.
So ``SignedStore`` hides the names of the keys and signs the values.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from torch._C._distributed_c10d import FileStore, Store, TCPStore
from torch.distributed.constants import default_pg_timeout

FILE = "file://"
_DIGEST_BYTES = hashlib.sha256().digest_size


def connect(url: str, secret: bytes, world_size: int, listener: socket.socket | None = None) -> Store:
    """Return the store at ``url``, "file:///path" or "tcp://host:port".

    Args:
        secret: known to the ranks only; a file needs none.
        listener: the socket that is bound to the address, in the process that is the server.
    """
    if url.startswith(FILE):
        store = FileStore(url.removeprefix(FILE), world_size)
        store.set_timeout(default_pg_timeout)
        return store
    address = urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    server = TCPStore(
        address.hostname,
        address.port,
        is_master=listener is not None,
        wait_for_workers=False,
        timeout=default_pg_timeout,
        master_listen_fd=listener.detach() if listener else None,
    )
    return SignedStore(server, secret)


class SignedStore(Store):
    """A store whose keys and values only processes with the secret can write and check.

    The name of a key is replaced by a keyed hash of it, so the names that the server lists say nothing. A
    value follows its keyed hash, which includes the key: a value is not accepted under another key. Counters
    are not signed, and the process groups use none for addresses.
    """

    def __init__(self, store: Store, secret: bytes) -> None:
        super().__init__()
        self._store: Any = store  # torch's types know values of text only
        self._secret = secret

    def set(self, key: str, value: Any) -> None:
        """Write a value, bytes or text."""
        content = value.encode() if isinstance(value, str) else bytes(value)
        self._store.set(self._name(key), self._signature(key, content) + content)

    def get(self, key: str) -> bytes:
        """Wait for a value and return it.

        Raises:
            RuntimeError: a process without the secret wrote it.
        """
        signed: bytes = self._store.get(self._name(key))
        signature, content = signed[:_DIGEST_BYTES], signed[_DIGEST_BYTES:]
        if not hmac.compare_digest(signature, self._signature(key, content)):
            raise RuntimeError(
                f"the store of the trainer ranks has a value for {key!r} that no rank of this run wrote"
            )
        return content

    def add(self, key: str, amount: int) -> int:
        """Add to a counter and return it."""
        return int(self._store.add(self._name(key), amount))

    def check(self, keys: Sequence[str]) -> bool:
        """Return True if all keys have values."""
        return bool(self._store.check([self._name(key) for key in keys]))

    def wait(self, keys: Sequence[str], timeout: timedelta | None = None) -> None:
        """Wait until all keys have values."""
        self._store.wait([self._name(key) for key in keys], *([timeout] if timeout else []))

    def delete_key(self, key: str) -> bool:
        """Remove a key and return True if it had a value."""
        return bool(self._store.delete_key(self._name(key)))

    def set_timeout(self, timeout: timedelta) -> None:
        """Set how long ``get`` and ``wait`` wait by default."""
        self._store.set_timeout(timeout)

    def _name(self, key: str) -> str:
        return hmac.digest(self._secret, b"key\0" + key.encode(), hashlib.sha256).hex()

    def _signature(self, key: str, content: bytes) -> bytes:
        return hmac.digest(self._secret, b"value\0" + key.encode() + b"\0" + content, hashlib.sha256)
