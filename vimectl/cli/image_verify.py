"""`vimectl image verify`: what an image is."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vimectl.cli.image_build import BuilderOption
from vimectl.util.console import JsonOption, emit_json, out, table

if TYPE_CHECKING:
    from vimectl.images.verify import Verdict


def verify(
    image: Annotated[str, typer.Argument(help="An image's name or id.")],
    builder: BuilderOption = "auto",
    stand_in: Annotated[
        bool, typer.Option("--stand-in", help="A stand-in is expected; otherwise it is a difference.")
    ] = False,
    tree: Annotated[
        bool, typer.Option("--tree", help="Give the digest of the file tree too: reads every file.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Look at an image, running nothing in it: patches, memory saver, labels; exit 1 if one is not well."""
    from vimectl.images import verify as images
    from vimectl.images.builder import choose
    from vimectl.util.host import Host

    verdict = images.verify(image, choose(builder, Host()), stand_in, tree)
    if as_json:
        emit_json("image.verify", verdict.ok, **_as_json(verdict))
    else:
        _show(image, verdict)
    raise typer.Exit(0 if verdict.ok else 1)


def _as_json(verdict: Verdict) -> dict[str, Any]:
    return {
        "image": verdict.image.digest,
        "stack": verdict.stack,
        "stand_in": verdict.stand_in,
        "labels": dict(verdict.image.labels),
        "user": verdict.image.user,
        "patches": [target.as_json() for target in verdict.patches],
        "tms": [asdict(build) for build in verdict.builds],
        "report": verdict.report,
        "checks": [asdict(finding) for finding in verdict.findings],
        "tree": verdict.tree,
        "problems": list(verdict.problems),
    }


def _show(image: str, verdict: Verdict) -> None:
    kind = "a STAND-IN, not to be run on NPUs" if verdict.stand_in else verdict.stack
    out.print(f"[bold]{image}[/]: {kind}")
    rows = [["stack", verdict.stack, ""]]
    rows += [["patches", one.target.package, f"{one.target.version} {one.state}"] for one in verdict.patches]
    rows += [
        ["tms", build.verdict, f"{build.backend}, {build.note}"] for build in verdict.builds if build.loads
    ]
    summary = ", ".join(f"{count} {status}" for status, count in verdict.report["summary"].items() if count)
    rows += [["doctor", "when it was built", summary]]
    now = {
        status: sum(f.status == status for f in verdict.findings)
        for status in ("pass", "warn", "fail", "skip")
    }
    rows += [["doctor", "now", ", ".join(f"{count} {status}" for status, count in now.items() if count)]]
    rows += [["user", verdict.image.user, ""], ["image", verdict.image.digest, ""]]
    rows += [["tree", verdict.tree, ""]] if verdict.tree else []
    table("", ["what", "", ""], rows)
    for problem in verdict.problems:
        out.print(f"not well: {problem}", markup=False)
