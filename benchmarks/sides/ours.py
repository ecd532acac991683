"""``ours.py PIPE RUN_FILE``: the runtime, waiting after every step until the pipe says go on."""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection
from typing import Any

from vime_runtime import __main__ as runtime
from vime_runtime.logging.event_log import EventLog

TURN = Connection(int(sys.argv[1]))


class PausingEventLog(EventLog):
    """The metrics of a step are the last thing the loop does in it."""

    def metrics(self, row: dict[str, Any]) -> None:
        super().metrics(row)
        TURN.send(row)
        TURN.recv()


runtime.EventLog = PausingEventLog
sys.exit(runtime.main([sys.argv[0], sys.argv[2]]))
