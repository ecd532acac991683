"""Find the last traceback in a text, and the line of the user's code in it.

The text is a log, an exception that Python has formatted, or the message of Ray's ``RayTaskError``, which
replaces the first line of a traceback by ``ray::TrainerActor.call() (pid=7, ip=127.0.0.1, …)``.
"""

from __future__ import annotations

import re

# ECMA-48 control sequences: colors.
_CONTROL_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
# Before every line of a worker's log: ``(Worker_TP0 pid=7) ERROR 11-30 21:08:09 [core.py:9] ``.
_VLLM_PREFIX = re.compile(
    r"^(?:\([^()]* pid=\d+\) )?(?:(?:[A-Z]+ )\d\d-\d\d \d\d:\d\d:\d\d \[[^]]+\] ?)?", re.ASCII
)
_HEAD = re.compile(r"(?:Traceback \(most recent call last\):|ray::.*\(pid=\d+, ip=.*)")
_FRAME = re.compile(r'\s+File "(?P<file>.+)", line (?P<line>\d+)(?:, in (?P<function>.+))?')
# What follows a traceback in a log: a marked phase, a log line of another process or library.
_NEXT_ENTRY = re.compile(r"--- \d\d:\d\d:\d\d |\[?[\dA-Z]*\d{4}-\d\d-\d\d[ T]\d\d:|nanobind: ")
# Python's own modules and installed packages; sources of packages that images for NPUs install editable.
_LIBRARY = re.compile(
    r"<|.*(?:/lib/python3\.\d+/|/(?:site|dist)-packages/|/(?:vllm_ascend|mindspeed|megatron/core|vllm/vllm)/)"
)
_RUNTIME = re.compile(r".*/vime_runtime/")
# Lines of an exception's message that are kept: the rest is rarely read.
MESSAGE_LINES = 12


def plain_lines(text: str) -> list[str]:
    """Return the lines without colors and vLLM's prefix, and the last state of each progress bar."""
    lines = (line.rpartition("\r")[2] for line in _CONTROL_SEQUENCE.sub("", text).split("\n"))
    return [_VLLM_PREFIX.sub("", line.rstrip()) for line in lines]


def last_traceback(lines: list[str]) -> list[str]:
    """Return the lines of the last traceback, up to the end of the exception's message; empty without one."""
    heads = [number for number, line in enumerate(lines) if _HEAD.fullmatch(line)]
    if not heads:
        return []
    found = lines[heads[-1] :]
    end = next(
        (number for number, line in enumerate(found) if number and not line.startswith(" ")), len(found)
    )
    message = []
    for line in found[end : end + MESSAGE_LINES]:
        if not line or _NEXT_ENTRY.match(line):
            break
        message.append(line)
    return found[:end] + message


def exception_text(traceback: list[str]) -> str:
    """Return type and message at the end of a traceback in one line."""
    return " ".join(line.strip() for line in traceback[_end_of_frames(traceback) :])


def location(traceback: list[str]) -> str:
    """Return ``FILE:LINE in FUNCTION`` of the last call in the user's code, "" without a call.

    If no file of the user is in the traceback, it is the last call of the runtime, or else of a library.
    """
    frames = [match for line in traceback if (match := _FRAME.fullmatch(line))]
    users = [f for f in frames if not _LIBRARY.match(f["file"]) and not _RUNTIME.match(f["file"])]
    runtimes = [f for f in frames if _RUNTIME.match(f["file"])]
    chosen = (users or runtimes or frames)[-1:]
    return "".join(
        f"{f['file']}:{f['line']}" + (f" in {f['function']}" if f["function"] else "") for f in chosen
    )


def _end_of_frames(traceback: list[str]) -> int:
    """Return the number of the line with the exception; the lines of frames are indented."""
    return next((n for n, line in enumerate(traceback) if n and not line.startswith(" ")), len(traceback))
