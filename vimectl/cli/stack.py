"""`vimectl stack`: list and show the version sets, and detect the installed one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from vimectl.cli.output import CommandOutput, TextTable
from vimectl.stacks.catalog import load_stack, lock_path, stack_file, stack_names
from vimectl.util.host import Host

app = typer.Typer(no_args_is_help=True, help="List the supported version sets, and detect the installed one.")


@app.command("list")
def list_() -> CommandOutput:
    """List the stacks: tested (patches tested on the released sources) or untested (versions only)."""
    known = [load_stack(name) for name in stack_names()]
    documents = [
        {
            **s.stack.model_dump(),
            "installable": lock_path(s.name) is not None,
            "proven": s.tested,
            "packages": s.packages,
            "cann": s.cann,
        }
        for s in known
    ]
    rows = [
        [s.name, "tested" if s.tested else "untested", s.stack.device, s.stack.python, s.stack.description]
        for s in sorted(known, key=lambda s: (s.stack.device, not s.tested))
    ]
    columns = ["name", "state", "device", "python", "description"]
    return CommandOutput({"stacks": documents}, [TextTable(columns, rows, "stacks")])


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A stack's name, or the path of a stack file.")],
) -> CommandOutput:
    """Print a stack: versions, pinned sources, images, patch series, and the source of each fact."""
    chosen = load_stack(name)
    text = stack_file(name).read_text(encoding="utf-8")
    return CommandOutput({"stack": chosen.model_dump(), "proven": chosen.tested}, [text])


@app.command()
def detect() -> CommandOutput:
    """Print the stack installed for this interpreter, or the nearest one with the differences."""
    from vimectl.stacks.detection import detect_stack

    found = detect_stack(Host())
    rows = [[d.package, d.found or "absent", d.expected, d.relation] for d in found.differences]
    text: list[str | TextTable] = []
    if found.stack is None:
        text = ["no package of any known stack is installed for this interpreter"]
    elif found.exact:
        text = [f"{found.stack}: all packages have the stack's versions"]
    else:
        text = [
            f"nearest: {found.stack}, with {len(rows)} difference{'s' if len(rows) > 1 else ''}",
            TextTable(["package", "found", "expected", "relation"], rows),
        ]
    document = {"stack": found.stack, "differences": [asdict(d) for d in found.differences]}
    return CommandOutput(document, text, 0 if found.exact else 1)
