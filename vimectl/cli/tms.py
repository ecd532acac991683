"""`vimectl tms`: verify the torch_memory_saver library, and record builds of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from vime_runtime.spec.errors import MissingRequirement

from vimectl.cli.help_text import CommandGroup, epilog
from vimectl.cli.options import AnyStack, recipe_option
from vimectl.cli.output import CommandOutput, TextTable
from vimectl.stacks.catalog import default_stack, load_stack, stack_for_recipe
from vimectl.util.console import Markup, escape_markup, one_line
from vimectl.util.host import Host

if TYPE_CHECKING:
    from vimectl.env.memory_saver.verify import SaverBuild
    from vimectl.stacks.schema import Stack

app = CommandGroup(help="Verify the torch_memory_saver library, and record builds.")


@app.command(
    epilog=epilog(
        "vimectl tms verify",
        "vimectl tms verify torch_memory_saver-0.0.9-cp311-cp311-linux_aarch64.whl --stack ascend-0.22",
        done="all libraries that a job would load are known-good",
        failed="a library is not known-good for the stack",
        lacking="the library is not installed",
    )
)
def verify(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="PATH", help="A .so, a wheel, or the package's directory; by default what is installed."
        ),
    ] = None,
    stack: AnyStack = None,
    recipe: Annotated[str | None, recipe_option("A recipe's name or path, to use its stack.")] = None,
) -> CommandOutput:
    """Verify that the libraries are known-good for the stack.

    Those that a job would load count.
    """
    from vimectl.env.memory_saver.verify import all_good, required_backend, verify_installed, verify_path

    host = Host()
    chosen = _stack(stack, recipe, host)
    builds = verify_path(path, host, chosen) if path else verify_installed(host, chosen)
    needed = required_backend(chosen)
    if not builds and needed:
        raise MissingRequirement(
            f"torch_memory_saver is not installed; the stack needs a build for {needed}",
            "see `vimectl tms list` for the known builds",
        )
    ok = all_good(builds, chosen)
    text: list[str] = [_facts(build) for build in builds]
    if not builds:
        text = ["torch_memory_saver is not installed, and the stack does not need it"]
    elif all(build.loads is False for build in builds):
        text.append("none of these would be loaded" + ("" if ok else ", and the stack needs one"))
    document = {"stack": chosen.name if chosen else None, "builds": [asdict(build) for build in builds]}
    return CommandOutput(document, text, 0 if ok else 1)


@app.command(
    epilog=epilog('vimectl tms record ./torch_memory_saver.so --note "built from v0.0.9, passed our tests"')
)
def record(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A .so, a wheel, or the package's directory.")],
    note: Annotated[
        str, typer.Option(metavar="TEXT", help="Why it is good: its source, the tests it passed.")
    ],
) -> CommandOutput:
    """Record a build as known-good, for your user on this machine."""
    from vimectl.env.memory_saver.known_builds import record_build, user_builds_file
    from vimectl.env.memory_saver.verify import verify_path

    added = record_build(verify_path(path, Host(), None), note)
    file = user_builds_file()
    text = [f"{build.name}: recorded as known-good by {build.by} at {build.at}" for build in added]
    text.append(f"recorded in {file}" if added else "recorded already")
    return CommandOutput({"file": file, "builds": [build.model_dump() for build in added]}, text)


@app.command("list", epilog=epilog("vimectl tms list"))
def list_() -> CommandOutput:
    """List the known builds."""
    from vimectl.env.memory_saver.known_builds import known_builds

    builds = known_builds()
    rows = []
    for build in builds:
        digest = build.sha256 or build.md5 or f"md5 {build.md5_prefix}…"
        note = f"{build.note} ({build.by}, {build.at})" if build.by else build.note
        rows.append([build.name, build.verdict, build.backend, digest, note])
    columns = ["name", "verdict", "backend", "digest", "note"]
    table = TextTable(columns, rows, "known builds of torch_memory_saver")
    return CommandOutput({"builds": [build.model_dump() for build in builds]}, [table])


def _stack(name: str | None, recipe: str | None, host: Host) -> Stack | None:
    from vimectl.stacks.detection import detect_stack

    if recipe and not name:
        from vimectl.recipes.resolve import resolve

        name = stack_for_recipe(resolve(recipe).recipe.recipe.stack)
    chosen = name or default_stack() or detect_stack(host).stack
    return load_stack(chosen) if chosen else None


def _facts(build: SaverBuild) -> Markup:
    known = f"{build.name} (by {build.match})" if build.name else "not a known build"
    lines = [build.path, f"{known}; {build.note}"]
    if build.why:
        lines.append(f"{'loaded' if build.loads else 'not loaded'}: {build.why}")
    if build.machine:
        lines.append(f"{build.backend}, {build.machine}, hook mode {build.hook_mode}, {build.size} bytes")
        lines.append(f"needs {' '.join(build.needed)}")
    if build.sha256:
        lines.append(f"md5 {build.md5}  sha256 {build.sha256}")
    return Markup(f"[bold]{build.verdict}[/]  " + escape_markup("\n    ".join(map(one_line, lines))))
