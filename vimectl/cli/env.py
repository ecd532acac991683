"""`vimectl env`: create the virtual environment of a stack."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vimectl.cli.help_text import CommandGroup, epilog
from vimectl.cli.options import ProjectStack
from vimectl.cli.output import CommandOutput
from vimectl.stacks.catalog import required_stack
from vimectl.util.console import err
from vimectl.util.phase_progress import show_phases

app = CommandGroup(help="Create the virtual environment of a stack.")


@app.callback()
def _group() -> None:
    pass


@app.command(
    epilog=epilog(
        "vimectl env create .venv --stack cpu-0.32  # everything to train on a CPU",
        "vimectl env create .venv                   # the stack of the project file",
        lacking="the machine lacks something: the Python of the stack, free disk space",
    )
)
def create(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A directory that is empty or does not exist.")
    ],
    stack: ProjectStack = None,
) -> CommandOutput:
    """Create a virtual environment with a stack. After an interruption the same command resumes."""
    from vimectl.env.create import create_environment, stack_with_lock

    chosen, lock = stack_with_lock(required_stack(stack))
    try:
        with show_phases() as report:
            made = create_environment(directory, chosen, lock, report)
    except KeyboardInterrupt:
        err.print(f"interrupted; resume with: vimectl env create {directory} --stack {chosen.argument}")
        raise
    line = f"{directory}: {made.stack} is already complete, {made.packages} packages"
    if made.installed:
        now = f"{made.installed} of them installed now in {made.seconds:.0f} s"
        line = f"{directory}: {made.stack}, {made.packages} packages, {now}"
    lines = [line, *(f"without {text}" for text in made.left_out)]
    return CommandOutput(asdict(made) | {"seconds": round(made.seconds, 1)}, lines)
