"""`vimectl stack`: the sets of versions that vimectl knows, and which one is installed."""

from __future__ import annotations

from dataclasses import asdict

import typer

from vimectl.console import JsonOption, emit_json, out, table

app = typer.Typer(no_args_is_help=True, help="The sets of versions that belong together; which is installed.")


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List the known stacks."""
    from vimectl import stack

    known = [stack.load(name) for name in stack.names()]
    if as_json:
        rows = [{**s.stack.model_dump(), "installable": stack.lock_path(s.name) is not None} for s in known]
        emit_json("stack.list", True, stacks=rows)
        return
    table(
        "stacks",
        ["name", "device", "python", "description"],
        [[s.name, s.stack.device, s.stack.python, s.stack.description] for s in known],
    )


@app.command()
def show(name: str, as_json: JsonOption = False) -> None:
    """Show one stack: versions, pinned sources, patch series, and where each fact comes from."""
    from vimectl import stack

    chosen = stack.load(name)
    if as_json:
        emit_json("stack.show", True, stack=chosen.model_dump())
        return
    out.print(f"[bold]{chosen.name}[/]  {chosen.stack.description}")
    rows = [["python", chosen.stack.python, chosen.notes.get("python", "")]]
    rows += [
        [package, version, chosen.notes.get(package, "")] for package, version in chosen.packages.items()
    ]
    if chosen.cann:
        rows.append(["CANN", chosen.cann, chosen.notes.get("cann", "")])
    rows += [[package, pin.commit, pin.url] for package, pin in chosen.commits.items()]
    rows += [[f"patches for {package}", version, ""] for package, version in chosen.patches.items()]
    left_out = chosen.unwanted | chosen.omitted
    rows += [[f"without {package}", "", why] for package, why in left_out.items()]
    table("", ["part", "version", "source or reason"], rows)


@app.command()
def detect(as_json: JsonOption = False) -> None:
    """Name the stack that is installed for this interpreter, or the nearest one with the differences."""
    from vimectl import stack
    from vimectl.host import Host

    found = stack.detect(Host())
    if as_json:
        emit_json(
            "stack.detect", found.exact, stack=found.stack, differences=[asdict(d) for d in found.differences]
        )
    elif found.stack is None:
        out.print("nothing of any known stack is installed for this interpreter")
    elif found.exact:
        out.print(f"{found.stack}: every package is at the stack's version")
    else:
        rows = [[d.package, d.found or "absent", d.expected] for d in found.differences]
        out.print(f"nearest: {found.stack}, with {len(rows)} differences")
        table("", ["package", "found", "expected"], rows)
    if not found.exact:
        raise typer.Exit(1)
