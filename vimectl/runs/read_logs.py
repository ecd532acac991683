"""Read the logs of a run, as far as they are written or until the run has ended."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

from vime_runtime.spec.errors import unknown
from vime_runtime.spec.regular_files import open_regular

from vimectl.runs.progress import PlainView
from vimectl.runs.run_directory import RunDirectory
from vimectl.runs.run_log import RunLog
from vimectl.runs.supervised_command import CHECK_INTERVAL
from vimectl.util.console import out, visible

# A longer line is divided.
_MAX_LINE_BYTES = 2**20
# ECMA-48, SGR.
_COLOR = re.compile(r"\x1b\[[\d;]*m")


def progress(run: RunDirectory, follow: bool) -> Iterator[str]:
    """Yield the lines that `vimectl run` prints when its output is piped, and last how the run has ended."""
    log, view = RunLog(run.path), PlainView(out.console)
    for _ in _reads(run, follow):
        for _ in log.replay():
            yield from view.new_lines(log)
    now = RunDirectory(run.path)
    if now.summary:
        yield f"ended: {now.summary['reason']}"
    elif now.state == "lost":
        yield "lost: the supervisor has exited and left no summary"


def process_log(run: RunDirectory, process: str, follow: bool) -> Iterator[str]:
    """Yield the lines of the log file of a process, such as ``trainer 0``, without their ends.

    Raises:
        UsageError: there is no such log; the message suggests the nearest names.
    """
    return _lines(run, _log_file(run, process), follow)


def printable(line: str) -> str:
    """Return a line for a terminal: without colors, with other hidden characters as escapes.

    Of a progress bar, which returns to the start of its line, it is the last state.
    """
    text = _COLOR.sub("", line).expandtabs().rstrip("\r").rpartition("\r")[2]
    return visible(text)


def logs_by_process(run: RunDirectory) -> dict[str, Path]:
    """Return the log files of a run by the names of their processes, such as ``trainer-0``."""
    folder = run.files.logs
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name.removesuffix(".log"): path for name, path in files.items()}


def _log_file(run: RunDirectory, process: str) -> Path:
    logs = logs_by_process(run)
    name = process.replace(" rank ", " ").replace(" ", "-")
    if name not in logs:
        raise unknown("process", process, logs)
    return logs[name]


def _lines(run: RunDirectory, path: Path, follow: bool) -> Iterator[str]:
    rest = b""
    with open_regular(path) as file:
        for _ in _reads(run, follow):
            while line := file.readline(_MAX_LINE_BYTES):
                rest += line
                if rest.endswith(b"\n") or len(rest) >= _MAX_LINE_BYTES:
                    yield rest.removesuffix(b"\n").decode(errors="replace")
                    rest = b""
    if rest:
        yield rest.decode(errors="replace")


def _reads(run: RunDirectory, follow: bool) -> Iterator[None]:
    """Yield once to read what there is; to follow a run, again and again until it has ended."""
    while True:
        # What an ended run has written is read after this look at its state.
        ended = not follow or RunDirectory(run.path).state != "running"
        yield
        if ended:
            return
        out.flush()  # the reader of a pipe is to get each line in time
        time.sleep(CHECK_INTERVAL)
