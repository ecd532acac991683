"""`vimectl image build`: build the image of a stack, all or nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vimectl.cli.phases import phases
from vimectl.util.console import JsonOption, emit_json, err, out

if TYPE_CHECKING:
    from collections.abc import Callable

    from vimectl.env import Progress
    from vimectl.images.build import Built

BuilderOption = Annotated[str, typer.Option(help="auto, docker, podman or buildah: what works here.")]
_STEP_WIDTH = 70


def build(
    stack: Annotated[str, typer.Option(help="The stack: its name, or the file of one of your own.")],
    chip: Annotated[
        str | None, typer.Option(help="The generation of NPU, a2 or a3; a2 by default.", metavar="a2|a3")
    ] = None,
    base: Annotated[str | None, typer.Option(help="Start from this image instead of the stack's.")] = None,
    offline: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Build from a folder that `image vendor` filled; fetch nothing."),
    ] = None,
    tag: Annotated[str | None, typer.Option(help="The image's name; by default vimectl:STACK-CHIP.")] = None,
    builder: BuilderOption = "auto",
    records: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where log, SBOM and provenance go; by default images/STACK-TIME."),
    ] = None,
    stand_in: Annotated[
        bool,
        typer.Option(
            "--stand-in",
            help="The base has no Ascend compiler: leave the kernels out, and say so in the image.",
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be built.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Build the image of a stack. With SOURCE_DATE_EPOCH set, the same sources give the same files."""
    from vimectl.cli.image import plan_as_json, show_plan
    from vimectl.images import build as builds
    from vimectl.images import plan as plans
    from vimectl.images import vendor
    from vimectl.images.builder import choose
    from vimectl.util.host import Host

    made = plans.make(stack, chip, base)
    if dry_run:
        if as_json:
            emit_json("image.build", True, **plan_as_json(made), dry_run=True)
        else:
            show_plan(made)
        return
    chosen = choose(builder, Host())
    request = builds.Request(
        plan=made,
        folder=offline or vendor.cache(made),
        tag=tag or builds.tag(made),
        records=records or builds.records(made),
        stand_in=stand_in,
        epoch=_epoch(),
    )
    try:
        with phases() as report:
            if offline is None:
                vendor.collect(made, request.folder, report)
            built = builds.build(request, chosen, _steps(report))
    except KeyboardInterrupt:
        err.print("interrupted: no image, container or mount is left")
        raise
    if as_json:
        emit_json("image.build", True, **_as_json(built))
        return
    out.print(
        f"{request.tag}: {built.image.digest[:12]}, built by {chosen.name} in {_seconds(built):.0f} s",
        markup=False,
    )
    out.print(f"what went in and what came out: {built.provenance.parent}", markup=False)
    if stand_in:
        out.print("It is a stand-in: it has no kernels and no memory saver for NPUs.")


def _as_json(built: Built) -> dict[str, Any]:
    return {
        "image": built.image.digest,
        "tag": built.made.name,
        "builder": built.made.builder,
        "base": built.made.base_digest,
        "labels": dict(built.image.labels),
        "log": str(built.log),
        "sbom": str(built.bill),
        "provenance": str(built.provenance),
        "seconds": round(_seconds(built), 1),
    }


def _seconds(built: Built) -> float:
    return (built.made.ended - built.made.began).total_seconds()


def _steps(report: Callable[[Progress], None]) -> Callable[[str], None]:
    """Tell the step that a builder is at, and the last line of what it says."""
    from vimectl.env import Progress
    from vimectl.images.builder.failure import STEP

    step = "preparing"

    def on_line(line: str) -> None:
        nonlocal step
        if STEP.match(line):
            step = line if len(line) <= _STEP_WIDTH else f"{line[: _STEP_WIDTH - 3]}..."
            report(Progress(step))
        elif line.strip():
            report(Progress(step, detail=line.strip()[:_STEP_WIDTH]))

    return on_line


def _epoch() -> int | None:
    from vime_runtime.spec.errors import UsageError

    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given is None:
        return None
    if not given.isdecimal():
        raise UsageError(
            f"SOURCE_DATE_EPOCH is {given!r}", "give seconds since 1970: git log -1 --format=%ct, for one"
        )
    return int(given)
