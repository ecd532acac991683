"""`vimectl env`: create the virtual environment of a stack."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vimectl.util.console import JsonOption, emit_json, err, out
from vimectl.util.phase_progress import show_phases

app = typer.Typer(no_args_is_help=True, help="Create the virtual environment of a stack.")


@app.callback()
def _group() -> None:
    pass


@app.command()
def create(
    directory: Annotated[Path, typer.Argument(help="A directory that is empty or does not exist.")],
    stack: Annotated[str, typer.Option(help="The name of the stack to install.")],
    as_json: JsonOption = False,
) -> None:
    """Create a virtual environment with a stack. After an interruption the same command resumes."""
    from vimectl.env.create import create_environment, stack_with_lock

    chosen, lock = stack_with_lock(stack)
    try:
        with show_phases() as report:
            environment = create_environment(directory, chosen, lock, report)
    except KeyboardInterrupt:
        err.print(f"interrupted; resume with: vimectl env create {directory} --stack {stack}")
        raise
    if as_json:
        emit_json(
            "env.create",
            True,
            directory=str(environment.directory),
            stack=environment.stack,
            python=str(environment.python),
            packages=environment.packages,
            installed=environment.installed,
            seconds=round(environment.seconds, 1),
        )
    elif environment.installed:
        out.print(
            f"{directory}: {environment.stack}, {environment.packages} packages, "
            f"{environment.installed} of them installed now in {environment.seconds:.0f} s"
        )
    else:
        out.print(f"{directory}: {environment.stack} is already complete, {environment.packages} packages")
