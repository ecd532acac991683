"""Hold one Engine in a process and call its methods over a socket: ``engine_process.py SOCKET``.

vLLM pins threads to cores and changes torch for the whole process, which the other tests must not feel.
"""

from __future__ import annotations

import sys
from multiprocessing.connection import Client
from operator import attrgetter


def main() -> None:
    with Client(sys.argv[1]) as connection:
        from vime_runtime.rollout.engine import Engine

        engine = Engine(connection.recv())
        connection.send((True, None))
        while True:
            try:
                method, args, kwargs = connection.recv()
            except EOFError:
                engine.close()
                return
            try:
                connection.send((True, attrgetter(method)(engine)(*args, **kwargs)))
            except Exception as e:
                connection.send((False, repr(e)))


if __name__ == "__main__":
    main()
