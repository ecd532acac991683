"""The progress of a command that works in phases: a bar on a terminal, occasional lines when piped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from vimectl.util.console import QUIET, err, visible

# The interval between two lines about the same phase when stderr is not a terminal.
_QUIET_SECONDS = 10.0


class PhaseProgress(NamedTuple):
    """The progress of one phase: ``done`` of ``total`` units, and the bytes downloaded so far.

    ``total_bytes`` is the size of all downloads, 0 when it is unknown.
    """

    phase: str
    done: int = 0
    total: int = 0
    unit: str = "packages"
    bytes: int = 0
    total_bytes: int = 0
    detail: str = ""


ReportPhase = Callable[[PhaseProgress], None]


@contextmanager
def show_phases() -> Iterator[ReportPhase]:
    """Yield the function that shows the progress on stderr, unless --quiet is given."""
    if err.level == QUIET:
        yield lambda now: None
        return
    if not err.is_terminal:
        yield _lines()
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    # Without markup, because a step of BuildKit begins with "[built 3/9]".
    columns = [
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[count]}", markup=False),
        TimeElapsedColumn(),
    ]
    with Progress(*columns, console=err.console, transient=True) as bar:
        task = bar.add_task("starting", total=None, count="")
        yield lambda now: bar.update(
            task,
            description=visible(now.phase),
            completed=now.done,
            total=now.total or None,
            count=visible(_count(now)),
        )


def _lines() -> ReportPhase:
    phase, printed = "", 0.0

    def report(now: PhaseProgress) -> None:
        nonlocal phase, printed
        if now.phase == phase and time.monotonic() - printed < _QUIET_SECONDS:
            return
        phase, printed = now.phase, time.monotonic()
        err.print(f"{now.phase} {_count(now)}".rstrip())

    return report


def _count(now: PhaseProgress) -> str:
    parts = [f"{now.done}/{now.total} {now.unit}"] if now.total else []
    if now.bytes:
        of = f" of {now.total_bytes / 1e6:.0f}" if now.total_bytes else ""
        parts.append(f"{now.bytes / 1e6:.0f}{of} MB")
    return ", ".join([*parts, now.detail] if now.detail else parts)
