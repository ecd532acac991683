"""`vimectl tms`: judge the torch_memory_saver library."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vimectl.console import JsonOption, emit_json, out, table

if TYPE_CHECKING:
    from vimectl.host import Host
    from vimectl.memory_saver import Build
    from vimectl.stack import Stack

app = typer.Typer(no_args_is_help=True, help="Judge the torch_memory_saver library.")


@app.command()
def verify(
    path: Annotated[
        Path | None,
        typer.Argument(
            help="A .so, a wheel, or the directory of the package; without it, what is installed."
        ),
    ] = None,
    stack: Annotated[
        str | None, typer.Option(help="The stack it is for; the installed one by default.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Judge the libraries found; exit 1 unless each is known to be good for the stack."""
    from vimectl import memory_saver
    from vimectl.errors import MachineLacks
    from vimectl.host import Host

    host = Host()
    wanted_by = _stack(stack, host)
    if path:
        builds = memory_saver.judge_path(path, host, wanted_by)
    else:
        builds = memory_saver.judge_installed(host, wanted_by)
        needed = memory_saver.wanted_backend(wanted_by)
        if not builds and needed:
            raise MachineLacks(
                f"torch_memory_saver is not installed; the stack needs a build for {needed}",
                "see `vimectl tms list` for the known builds",
            )
    ok = all(build.verdict == "known-good" for build in builds)
    if as_json:
        emit_json("tms.verify", ok, builds=[asdict(build) for build in builds])
    elif not builds:
        out.print("torch_memory_saver is not installed, and nothing here needs it")
    else:
        for build in builds:
            _show(build)
    raise typer.Exit(0 if ok else 1)


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List the known builds."""
    from vimectl.memory_saver import known_builds

    if as_json:
        emit_json("tms.list", True, builds=[build.model_dump() for build in known_builds()])
        return
    rows = [
        [
            build.name,
            build.verdict,
            build.backend,
            build.sha256 or build.md5 or f"md5 {build.md5_prefix}…",
            build.note,
        ]
        for build in known_builds()
    ]
    table("known builds of torch_memory_saver", ["name", "verdict", "backend", "digest", "note"], rows)


def _stack(name: str | None, host: Host) -> Stack | None:
    from vimectl import stack

    chosen = name or stack.detect(host).stack
    return stack.load(chosen) if chosen else None


def _show(build: Build) -> None:
    out.print(f"[bold]{build.verdict}[/]  {build.path}")
    out.print(
        f"    {f'{build.name} (by {build.match})' if build.name else 'not a known build'}; {build.note}"
    )
    out.print(f"    {build.backend}, {build.machine}, hook mode {build.hook_mode}, {build.size} bytes")
    out.print(f"    md5 {build.md5}  sha256 {build.sha256}")
