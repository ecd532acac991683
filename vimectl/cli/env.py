"""`vimectl env`: the virtual environment that a stack runs in."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vimectl.console import JsonOption, emit_json, err, out

if TYPE_CHECKING:
    from vimectl.provision import Progress

app = typer.Typer(no_args_is_help=True, help="The virtual environment that a stack runs in.")

# Between two lines about the same phase when stderr is not a terminal.
_QUIET_SECONDS = 10.0


@app.callback()
def _group() -> None:
    pass


@app.command()
def create(
    directory: Annotated[Path, typer.Argument(help="A directory that is empty or does not exist.")],
    stack: Annotated[str, typer.Option(help="The stack to install.")],
    as_json: JsonOption = False,
) -> None:
    """Make a virtual environment that holds a stack. Call it again to go on after an interruption."""
    from vimectl import provision

    chosen, lock = provision.installable(stack)
    try:
        with _progress() as report:
            made = provision.create(directory, chosen, lock, report)
    except KeyboardInterrupt:
        err.print(f"interrupted; go on with: vimectl env create {directory} --stack {stack}")
        raise
    if as_json:
        emit_json(
            "env.create",
            True,
            directory=str(made.directory),
            stack=made.stack,
            python=str(made.python),
            packages=made.packages,
            installed=made.installed,
            seconds=round(made.seconds, 1),
        )
    elif made.installed:
        out.print(
            f"{directory}: {made.stack}, {made.packages} packages, {made.installed} of them installed now "
            f"in {made.seconds:.0f} s"
        )
    else:
        out.print(f"{directory}: {made.stack} is already there, {made.packages} packages")


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    if err.is_terminal:
        with _bar() as report:
            yield report
    else:
        yield _lines()


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
    ]
    with Bar(*columns, console=err.console, transient=True) as bar:
        task = bar.add_task("starting", total=None, count="")

        def report(now: Progress) -> None:
            bar.update(
                task, description=now.phase, completed=now.done, total=now.total or None, count=_count(now)
            )

        yield report


def _lines() -> Callable[[Progress], None]:
    phase, printed = "", 0.0

    def report(now: Progress) -> None:
        nonlocal phase, printed
        if now.phase == phase and time.monotonic() - printed < _QUIET_SECONDS:
            return
        phase, printed = now.phase, time.monotonic()
        err.print(f"{now.phase} {_count(now)}".rstrip())

    return report


def _count(now: Progress) -> str:
    parts = [f"{now.done}/{now.total} {now.unit}"] if now.total else []
    if now.bytes:
        parts.append(f"{now.bytes / 1e6:.0f} MB")
    return ", ".join([*parts, now.detail] if now.detail else parts)
