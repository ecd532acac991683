"""How far the fetching of a file is, on stderr: a bar on a terminal, a line now and then when piped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vimectl.util.console import err

Report = Callable[[str, int, "int | None"], None]

_MIB = 1024**2
# Between two lines when stderr is not a terminal.
_QUIET_SECONDS = 5.0


@contextmanager
def fetching() -> Iterator[Report]:
    """Yield what is to be told a file's name, the bytes that came, and all there are (None: unknown)."""
    if not err.is_terminal:
        yield _lines()
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=err.console, transient=True) as bar:
        tasks = {}

        def report(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done, total=total)

        yield report


def _lines() -> Report:
    printed = time.monotonic()

    def report(name: str, done: int, total: int | None) -> None:
        nonlocal printed
        if done != total and time.monotonic() - printed < _QUIET_SECONDS:
            return
        printed = time.monotonic()
        of = f" of {total / _MIB:.0f}" if total else ""
        err.print(f"fetching {name}: {done / _MIB:.0f}{of} MiB", markup=False)

    return report
