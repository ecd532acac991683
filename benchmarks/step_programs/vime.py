"""``vime.py PIPE RUN_FILE``: the runtime, which after every step waits for a message in the pipe."""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection
from typing import Any

from vime_runtime import __main__ as runtime
from vime_runtime.logging.event_log import EventLog

PIPE = Connection(int(sys.argv[1]))


class WaitingEventLog(EventLog):
    """Waits when the loop writes the metrics, which is the last action of a step."""

    def metrics(self, row: dict[str, Any]) -> None:
        super().metrics(row)
        PIPE.send(row)
        PIPE.recv()


runtime.EventLog = WaitingEventLog
sys.exit(runtime.main([sys.argv[0], sys.argv[2]]))
