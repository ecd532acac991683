"""`vimectl stack`: list and show the version sets, and detect the installed one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from vimectl.cli.output import CommandOutput, Markup, TextTable
from vimectl.stacks.catalog import load_stack, lock_path, stack_names
from vimectl.util.host import Host

if TYPE_CHECKING:
    from vimectl.stacks.schema import Stack

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
        [s.name, _state(s), s.stack.device, s.stack.python, s.stack.description]
        for s in sorted(known, key=lambda s: (s.stack.device, not s.tested))
    ]
    columns = ["name", "state", "device", "python", "description"]
    return CommandOutput({"stacks": documents}, [TextTable(columns, rows, "stacks")])


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A stack's name, or the path of a stack file.")],
) -> CommandOutput:
    """Show a stack: versions, pinned sources, images, patch series, and the source of each fact."""
    chosen = load_stack(name)
    heading = Markup(f"[bold]{chosen.name}[/]  {chosen.stack.description}  ({_state(chosen)})")
    facts = TextTable(["part", "version", "source or reason"], list(map(list, _facts(chosen))))
    return CommandOutput({"stack": chosen.model_dump(), "proven": chosen.tested}, [heading, facts])


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


def _state(chosen: Stack) -> str:
    return "tested" if chosen.tested else "untested"


def _facts(chosen: Stack) -> Iterator[tuple[str, str, str]]:
    """Yield every part of a stack, its version and the source, or the reason for a missing version."""
    yield "python", chosen.stack.python, chosen.source("python")
    yield "machines", " ".join(chosen.stack.machines), chosen.source("machines")
    for package, version in (chosen.packages | chosen.ranges).items():
        yield package, version, chosen.source(package)
    for part, one in (("CANN", chosen.cann), ("NNAL", chosen.nnal)):
        if one:
            yield part, one, chosen.source(part.lower())
    for package, pin in chosen.commits.items():
        yield package, pin.commit, f"{pin.url}; {chosen.source(package)}"
    if saver := chosen.memory_saver:
        source = f"{saver.url}, {saver.build}; {chosen.source('memory_saver')}"
        yield "memory saver", f"{saver.tag} ({saver.commit})", source
        for module in saver.submodules:
            yield "memory saver submodule", module.commit, f"{module.url}, at {module.path}"
        for build in saver.builds:
            yield "memory saver build", build, "vimectl tms list"
    if chosen.images:
        yield "image for A2", chosen.images.a2, chosen.source("images")
        yield "image for A3", chosen.images.a3, chosen.source("images")
    if image := chosen.image:
        yield "python in the image", f"{image.python}, glibc {image.glibc}", chosen.source("image")
        for package, why in image.ships.items():
            yield f"{package} in the image", "from the base image", why
        for package, why in image.built.items():
            yield f"{package} in the image", "built from source", why
    for package, version in chosen.patches.items():
        yield f"patches for {package}", version, chosen.source("patches")
    for name, library in chosen.libraries.items():
        yield name, "system library", f"for {library.needed_by}; {library.install}"
    for part, why in chosen.unrecorded.items():
        yield part.replace("_", " "), "not recorded", why
    for package, why in (chosen.unwanted | chosen.omitted).items():
        yield f"without {package}", "", why
