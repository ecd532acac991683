"""Limit how long a server may keep a command waiting, and how many bytes a response may have.

Both are checked where bytes arrive from the network, below every library: status lines, headers, sizes of
chunks and bodies that a library reads by itself count too.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from collections import defaultdict
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from vime_runtime.spec.errors import MissingRequirement, UsageError

from vimectl.util.transfer_limits import MIN_RATE, WAIT_SECONDS

_MIB = 1024**2
_HINT = "check pip's configuration (pip config list), or name a folder, wheel or source archive instead"


class Allowance:
    """Count the seconds that each server may still take, and the bytes of the present response.

    All responses of a server share its time, which is ``WAIT_SECONDS`` or pip's timeout if that is longer.
    ``timeout`` is that of pip: how long one read may take, in seconds. ``connections`` work in parallel, each
    with its own allowance: each needs only its share of the lowest rate.
    """

    def __init__(self, timeout: float, connections: int = 1) -> None:
        self._timeout = timeout
        self._min_rate = MIN_RATE / connections
        self._seconds: defaultdict[str, float] = defaultdict(lambda: max(WAIT_SECONDS, timeout))
        self._server = ""
        self._limit = self._bytes = 0

    def begin(self, server: str, limit: int) -> None:
        """Allow a response with a body of ``limit`` bytes, an eighth more for its chunks, and headers."""
        self._server, self._limit = server, limit
        self._bytes = limit + limit // 8 + _MIB

    def receive(self, sock: socket.socket, raw: io.RawIOBase, buffer: memoryview) -> int | None:
        """Read from a socket into ``buffer``.

        Raises:
            MissingRequirement: the server has used up its time.
            UsageError: the response is longer than it may be.
            TimeoutError: nothing arrives.
        """
        left = self._seconds[self._server]
        if left <= 0:
            raise MissingRequirement(
                f"{self._server}: too slow: more than {max(WAIT_SECONDS, self._timeout):.0f} s of waiting, "
                f"and less than {self._min_rate / 1024:.0f} KiB/s",
                f"try again later; {_HINT}",
            )
        sock.settimeout(min(self._timeout, left))
        start = time.monotonic()
        try:
            count: int | None = raw.readinto(buffer)
        finally:
            self._seconds[self._server] -= time.monotonic() - start
        self._seconds[self._server] += (count or 0) / self._min_rate
        self._bytes -= count or 0
        if self._bytes < 0:
            raise UsageError(
                f"{self._server}: sends a response without end; {self._limit} bytes are expected",
                _HINT,
            )
        return count


class LimitedAdapter(HTTPAdapter):
    """An adapter whose connections only receive what an ``Allowance`` permits."""

    def __init__(self, allowance: Allowance, **options: Any) -> None:
        self._pools = _pools(allowance)
        super().__init__(**options)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = self._pools
        return manager


class _LimitedSocket(io.RawIOBase):
    """The bytes that arrive at a socket. ``raw`` is the file of the socket, which this one closes."""

    def __init__(self, sock: socket.socket, raw: io.RawIOBase, allowance: Allowance) -> None:
        super().__init__()
        self._socket, self._raw, self._allowance = sock, raw, allowance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        return self._allowance.receive(self._socket, self._raw, buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _pools(allowance: Allowance) -> dict[str, type[HTTPConnectionPool]]:
    """Return the classes of connection pools by scheme."""

    def response(sock: socket.socket, *args: Any, **options: Any) -> http.client.HTTPResponse:
        made = http.client.HTTPResponse(sock, *args, **options)
        made.fp = io.BufferedReader(_LimitedSocket(sock, made.fp.detach(), allowance))
        return made

    class Plain(HTTPConnection):
        response_class = staticmethod(response)  # type: ignore[assignment]

    class Secure(HTTPSConnection):
        response_class = staticmethod(response)  # type: ignore[assignment]

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}
