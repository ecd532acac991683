"""Record in the event log why a run ends: what failed, where, and which processes had exited before.

An error is often the consequence of the exit of a process: its peers get "connection closed by peer", and
Ray reports a dead actor. But once an error is recorded, the run shuts down, and all of its processes exit for
that reason. So those that had exited before are recorded with the error; the supervisor blames one of them.
"""

from __future__ import annotations

import os
import re
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from vime_runtime.logging.event_log import EventLog
from vime_runtime.spec.errors import RewardFailed, VimeError
from vime_runtime.spec.events import ErrorFields
from vime_runtime.spec.process_roles import ProcessEntry
from vime_runtime.spec.traceback_text import exception_text, last_traceback, location, plain_lines

# Errors of Ray and vLLM whose class name contains one of these only say that a process has exited, does not
# respond, or was killed for lack of memory; see ``ray.exceptions``.
_LOSS_TYPES = (
    *("Died", "Unavailable", "Crashed", "RaySystemError", "RpcError", "GetTimeoutError", "ObjectLost"),
    *("EngineDead", "RayOutOfMemory"),
)
# Messages of RuntimeErrors that say the same: gloo, torch's TCPStore, HCCL and NCCL; ``cancelled`` and
# ``Executor failed`` of vLLM's MultiprocExecutor, whose queues are closed when one of its workers exits. A
# later call fails an assertion, whose text takes the missing queue for that of a follower node.
_LOSS_MESSAGES = re.compile(
    r"closed by peer|connection (?:was )?(?:likely )?(?:closed|reset|refused)|broken pipe|socket closed"
    r"|got 0 bytes|remote process exited|timed out waiting|\bcancelled$|executor failed"
    r"|rpc call to \w+ timed out|should not be called on follower node",
    re.IGNORECASE,
)
# vLLM's executor passes on the message of a worker's error at most; the traceback is in the worker's log.
_IN_WORKER_LOG = re.compile(
    r"Worker failed with error '(?P<message>.*)', please|WorkerProc initialization failed", re.DOTALL
)
# The kernel closes the connections of a process that it kills before it reports the exit.
EXIT_SECONDS = 1.0
EXIT_HINT = "raise an exception with a message instead of calling exit()"
# Characters of a message, lines of a traceback that are recorded.
MESSAGE_LIMIT = 1000
TRACEBACK_LINES = 60


@contextmanager
def report_end(log: EventLog, logs: Path) -> Iterator[None]:
    """Record how the block ended. Use it inside the Ray cluster: shutting down Ray may take long or hang.

    A stop request (KeyboardInterrupt) is no error.

    Args:
        logs: the folder of the run's log files.
    """
    done = False
    try:
        yield
        done = True
    except (Exception, SystemExit) as e:
        if not log.failed:
            log.error(describe(e, logs, log.recorded_processes))
        raise
    finally:
        log.ending(done)


def describe(error: BaseException, logs: Path, processes: list[ProcessEntry]) -> ErrorFields:
    """Return the fields of the error event.

    Args:
        processes: those of the run. Of the ones on this node, those that have exited are listed.
    """
    if isinstance(error, VimeError):
        return ErrorFields(
            kind=error.kind,
            message=error.message,
            hint=error.hint,
            where=error.where if isinstance(error, RewardFailed) else "",
            traceback=error.traceback if isinstance(error, RewardFailed) else "",
            pid=None,
            lost_peer=False,
            exited=_exited(processes),
        )
    kind, message, trace = _explained(error, logs)
    lost_peer = _is_loss(error)
    return ErrorFields(
        kind=kind,
        message=message[:MESSAGE_LIMIT],
        hint=EXIT_HINT if isinstance(error, SystemExit) else "",
        where=location(trace),
        traceback="\n".join(trace[-TRACEBACK_LINES:]),
        pid=_dead_actor(error),
        lost_peer=lost_peer,
        exited=_wait_for_exit(processes) if lost_peer else _exited(processes),
    )


def _explained(error: BaseException, logs: Path) -> tuple[str, str, list[str]]:
    """Return class name, ``Class: message`` and the lines of the traceback, of the process that failed."""
    remote = next((e for e in (error, error.__cause__) if e is not None and _is_task_error(e)), None)
    if remote is None:
        trace = last_traceback(plain_lines("".join(traceback.format_exception(error))))
        kind = type(error).__name__
        if type(error).__module__.startswith("ray."):  # the last line says why, after ids of Ray's
            return kind, f"{kind}: {_last_line(error)}", trace
        text = " ".join(str(error).split())
        return kind, f"{kind}: {text}" if text else kind, trace
    trace = last_traceback(plain_lines(str(remote)))
    text = exception_text(trace) or _last_line(remote)
    if found := _IN_WORKER_LOG.search(text):
        trace = _traceback_of_worker(logs, found["message"]) or trace
        text = exception_text(trace)
    # "package.module.Class: message"
    name, colon, message = text.partition(":")
    kind = name.rpartition(".")[2]
    return kind, f"{kind}{colon}{message}", trace


def _traceback_of_worker(logs: Path, message: str | None) -> list[str]:
    """Return the last traceback in the log of a worker of an engine; of several the one with ``message``.

    A worker that only lost its peer is not the one that failed.
    """
    texts, found = [], []
    for log in sorted(logs.glob("engine-*-worker-*.log")):
        with suppress(OSError):  # it must not replace the error that is reported
            texts.append(log.read_text(encoding="utf-8", errors="replace"))
    for trace in (last_traceback(plain_lines(text)) for text in texts):
        text = exception_text(trace)
        if trace and (not message or " ".join(message.split()) in text):
            found.append((bool(_LOSS_MESSAGES.search(text)), trace))
    return min(found, key=lambda each: each[0])[1] if found else []


def _is_task_error(error: BaseException) -> bool:
    ray_exceptions = sys.modules.get("ray.exceptions")  # not before Ray is imported
    return ray_exceptions is not None and isinstance(error, ray_exceptions.RayTaskError)


def _is_loss(error: BaseException) -> bool:
    """Return True if an error only says that another process has exited or does not respond."""
    cause = getattr(error, "cause", None) if _is_task_error(error) else None
    for each in (error, cause):
        if each is None:
            continue
        names = [
            f"Ray{c.__name__}" if c.__module__ == "ray.exceptions" else c.__name__ for c in type(each).__mro__
        ]
        if any(word in name for word in _LOSS_TYPES for name in names):
            return True
        if isinstance(each, RuntimeError | AssertionError) and _LOSS_MESSAGES.search(_last_line(each)):
            return True
    return False


def _last_line(error: BaseException) -> str:
    """Return the last line of an error, which says what happened; Ray puts a remote traceback before it."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def _dead_actor(error: BaseException) -> int | None:
    """Return the process id of the actor whose death Ray reports; the process may still be exiting."""
    found = re.search(r"^\s*pid: (\d+)$", str(error), re.MULTILINE)
    # If its owner or node died, that is the cause.
    is_cause = "its owner has died" not in str(error) and "its node has died" not in str(error)
    return int(found[1]) if found and is_cause else None


def _wait_for_exit(processes: list[ProcessEntry]) -> list[int]:
    """Return the processes that have exited; wait a little for the first one."""
    deadline = time.monotonic() + EXIT_SECONDS
    while not (found := _exited(processes)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def _exited(processes: list[ProcessEntry]) -> list[int]:
    """Return the ids of the processes of this node that have exited."""
    here = os.uname().nodename
    return [entry["pid"] for entry in processes if entry["node"] == here and _has_exited(entry["pid"])]


def _has_exited(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD))
    except psutil.NoSuchProcess:
        return True
