"""Free TCP ports for servers that tests start."""

from __future__ import annotations

import random
import socket


def free_port() -> int:
    """Return a port on which nothing listens on 127.0.0.1.

    It is below the ephemeral ports (from 32768, ip_local_port_range in ip(7)): between this call and the
    start of the server, a connection of another process could get one of those.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
