"""`vimectl image`: the container image of a stack."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vimectl.cli.image_build import build
from vimectl.cli.image_verify import verify
from vimectl.cli.phases import phases
from vimectl.util.console import JsonOption, emit_json, err, out, table

if TYPE_CHECKING:
    from vimectl.images.plan import Plan, Source

app = typer.Typer(no_args_is_help=True, help="The container image of a stack.")
app.command()(build)
app.command()(verify)

StackOption = Annotated[str, typer.Option(help="The stack: its name, or the file of one of your own.")]
ChipOption = Annotated[
    str | None, typer.Option(help="The generation of NPU, a2 or a3; a2 by default.", metavar="a2|a3")
]
BaseOption = Annotated[str | None, typer.Option(help="Start from this image instead of the stack's.")]
MachineOption = Annotated[
    str | None, typer.Option(help="The machine that the image is for; by default this one's kind.")
]
OfflineOption = Annotated[
    Path, typer.Option(metavar="DIR", help="The folder: empty, absent, or one to go on with.")
]


@app.callback()
def _group() -> None:
    pass


@app.command()
def plan(
    stack: StackOption,
    chip: ChipOption = None,
    base: BaseOption = None,
    machine: MachineOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what would be built and from what, every pin with its reason. Fetches and builds nothing."""
    from vimectl.images import plan as plans

    made = plans.make(stack, chip, base, machine)
    if as_json:
        emit_json("image.plan", True, **plan_as_json(made))
    else:
        show_plan(made)


@app.command()
def vendor(
    stack: StackOption,
    offline: OfflineOption,
    chip: ChipOption = None,
    base: BaseOption = None,
    machine: MachineOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be collected.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Collect everything a build needs in a folder. Call it again to go on after an interruption."""
    from vimectl.images import plan as plans
    from vimectl.images import vendor as vendors

    made = plans.make(stack, chip, base, machine)
    if dry_run:
        lacking = vendors.lacking(made, offline)
        if as_json:
            shown = [_source(source) for source in lacking]
            emit_json("image.vendor", True, folder=str(offline), **plan_as_json(made), lacking=shown)
        else:
            show_plan(made)
            todo = f"{len(lacking)} of {len(made.sources)} would be fetched or made"
            out.print(f"{offline}: {todo}", markup=False)
        return
    try:
        with phases() as report:
            collected = vendors.collect(made, offline, report)
    except KeyboardInterrupt:
        again = f"vimectl image vendor --stack {stack} --machine {made.machine} --offline {offline}"
        err.print(f"interrupted; go on with: {again}", markup=False)
        raise
    if as_json:
        entries = [entry.model_dump() for entry in collected.sources]
        emit_json("image.vendor", True, folder=str(offline), **plan_as_json(made), collected=entries)
    else:
        out.print(
            f"{offline}: {collected.stack} for {collected.machine} and Python {collected.python}, "
            f"{len(collected.sources)} sources, {collected.size / 1e6:.0f} MB",
            markup=False,
        )


@app.command("run-args")
def run_args(
    stack: StackOption,
    chip: ChipOption = None,
    compose: Annotated[
        bool, typer.Option("--compose", help="Print a compose file instead of arguments.")
    ] = False,
    tag: Annotated[
        str | None, typer.Option(help="The image, for --compose; by default as build names it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the options for `docker run` on this host: devices, driver, shared memory, limits."""
    from vimectl.images import build as builds
    from vimectl.images import plan as plans
    from vimectl.images import run_args as asked
    from vimectl.util.host import Host

    made = plans.make(stack, chip)
    found = asked.options(made.stack, Host())
    if as_json:
        emit_json("image.run-args", True, stack=made.stack.name, options=[asdict(one) for one in found])
    elif compose:
        print(asked.compose(found, tag or builds.tag(made)), end="")
    else:
        print("\n".join(option.text for option in found))


def plan_as_json(made: Plan) -> dict[str, Any]:
    """A plan as scripts read it."""
    return {
        "stack": made.stack.name,
        "chip": made.chip,
        "machine": made.machine,
        "python": made.image.python,
        "base": {"image": made.base, "reason": made.base_reason},
        "arguments": made.arguments,
        "sources": [_source(source) for source in made.sources],
    }


def show_plan(made: Plan) -> None:
    """Print a plan for people."""
    on = f" for {made.chip.upper()}" if made.chip else ""
    out.print(f"[bold]{made.stack.name}[/]{on}, {made.machine}, Python {made.image.python}")
    rows = [["base", made.base, "", made.base_reason]]
    rows += [[source.kind, source.name, _pin(source), source.reason] for source in made.sources]
    rows += [["argument", name, value, ""] for name, value in made.arguments.items()]
    table("", ["what", "name", "pin", "why"], rows)


def _source(source: Source) -> dict[str, Any]:
    shown = asdict(source)
    del shown["pin"]
    return shown


def _pin(source: Source) -> str:
    if source.commit:
        more = "".join(f", {one.path} {one.commit}" for one in source.submodules)
        return f"{source.url} {source.commit}{more}"
    return source.version
