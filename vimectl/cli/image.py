"""`vimectl image`: plan, collect, build and verify the container image of a stack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vimectl.cli.help_text import CommandGroup, epilog
from vimectl.cli.options import DryRun, ProjectStack
from vimectl.cli.output import CommandOutput, TextTable
from vimectl.stacks.catalog import required_stack
from vimectl.stacks.choices import BuilderName, Chip, Machine
from vimectl.util import source_date_epoch
from vimectl.util.console import Markup, err, escape_markup
from vimectl.util.host import Host
from vimectl.util.phase_progress import PhaseProgress, ReportPhase, show_phases

if TYPE_CHECKING:
    from vimectl.images.plan import ImagePlan, ImageSource
    from vimectl.images.verify import ImageVerification
    from vimectl.util.subprocess import OnLine

app = CommandGroup(help="Plan, build and verify the container image of a stack.")

ChipOption = Annotated[Chip | None, typer.Option(help="The NPU generation; by default a2 on an NPU stack.")]
BaseOption = Annotated[
    str | None, typer.Option(metavar="IMAGE", help="The base image, instead of the stack's.")
]
MachineOption = Annotated[
    Machine | None, typer.Option(help="The CPU architecture; by default this machine's.")
]
BuilderOption = Annotated[
    BuilderName, typer.Option(help="The program that builds; auto: the first that works here.")
]
_STEP_WIDTH = 70


@app.command(
    epilog=epilog(
        "vimectl image plan --stack ascend-0.22",
        "vimectl image plan --stack ascend-0.22 --chip a3 --machine aarch64",
    )
)
def plan(
    stack: ProjectStack = None,
    chip: ChipOption = None,
    base: BaseOption = None,
    machine: MachineOption = None,
) -> CommandOutput:
    """Show every source of an image, with its pin and the reason.

    Nothing is downloaded or built.
    """
    from vimectl.images.plan import make_plan

    image_plan = make_plan(required_stack(stack), chip, base, machine)
    return CommandOutput(_plan_json(image_plan), _plan_text(image_plan))


@app.command(
    epilog=epilog(
        "vimectl image vendor --stack ascend-0.22 --offline sources",
        "vimectl image vendor --stack ascend-0.22 --offline sources --dry-run",
    )
)
def vendor(
    offline: Annotated[
        Path, typer.Option(metavar="DIR", help="The folder: new, empty, or one to resume or update.")
    ],
    stack: ProjectStack = None,
    chip: ChipOption = None,
    base: BaseOption = None,
    machine: MachineOption = None,
    dry_run: DryRun = False,
) -> CommandOutput:
    """Collect all sources of an image in a folder.

    After an interruption the same command resumes.
    """
    from vimectl.images.manifest import vendor_command
    from vimectl.images.plan import make_plan
    from vimectl.images.vendor import collect, missing_sources

    image_plan = make_plan(required_stack(stack), chip, base, machine)
    document = {"folder": offline, **_plan_json(image_plan)}
    if dry_run:
        missing = missing_sources(image_plan, offline)
        todo = f"{len(missing)} of {len(image_plan.sources)} would be downloaded or made"
        text = [*_plan_text(image_plan), f"{offline}: {todo}"]
        lacking = {"lacking": list(map(_source_json, missing)), "dry_run": True}
        return CommandOutput(document | lacking, text)
    try:
        with show_phases() as report:
            collected = collect(image_plan, offline, report)
    except KeyboardInterrupt:
        again = vendor_command(image_plan.stack.argument, image_plan.machine, offline)
        err.print(f"interrupted; resume with: {again}")
        raise
    document["collected"] = [entry.model_dump() for entry in collected.sources]
    what = f"{collected.stack} for {collected.machine} and Python {collected.python}"
    size = f"{len(collected.sources)} sources, {collected.size / 1e6:.0f} MB"
    return CommandOutput(document, [f"{offline}: {what}, {size}"])


@app.command(
    epilog=epilog(
        "vimectl image build --stack ascend-0.22",
        "vimectl image build --stack ascend-0.22 --offline sources --tag mine:1",
        "vimectl image build --stack ascend-0.22 --dry-run",
        lacking="no builder works here, or the disk is full",
    )
)
def build(
    stack: ProjectStack = None,
    chip: ChipOption = None,
    base: BaseOption = None,
    machine: MachineOption = None,
    offline: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Build from a folder of `image vendor`; download nothing."),
    ] = None,
    tag: Annotated[
        str | None, typer.Option(metavar="TAG", help="The image's tag; by default vimectl:STACK-CHIP.")
    ] = None,
    builder: BuilderOption = "auto",
    records: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Where to write log, SBOM and provenance; by default images/STACK-TIME."
        ),
    ] = None,
    stand_in: Annotated[
        bool,
        typer.Option(
            "--stand-in",
            help="For a base image without the real CANN: its memory saver is not recorded as known-good.",
        ),
    ] = False,
    dry_run: DryRun = False,
) -> CommandOutput:
    """Build the image of a stack.

    With SOURCE_DATE_EPOCH the same sources give the same files.
    """
    from vimectl.images import provenance
    from vimectl.images.builders import choose_builder
    from vimectl.images.plan import make_plan
    from vimectl.images.vendor import collect, default_folder

    image_plan = make_plan(required_stack(stack), chip, base, machine)
    if dry_run:
        return CommandOutput(_plan_json(image_plan) | {"dry_run": True}, _plan_text(image_plan))
    # It needs the extra `image`. Imported before anything is downloaded.
    from vimectl.images.build import build_image, default_records

    chosen = choose_builder(builder, Host())
    folder = offline or default_folder(image_plan)
    tag = tag or image_plan.default_tag
    records = records or default_records(image_plan)
    epoch = source_date_epoch.seconds()
    try:
        with show_phases() as report:
            if offline is None:
                collect(image_plan, folder, report)
            on_line = _step_progress(report)
            built = build_image(image_plan, folder, tag, records, chosen, on_line, stand_in, epoch)
    except KeyboardInterrupt:
        err.print("interrupted: no image, container or mount is left")
        raise
    seconds = (built.ended - built.began).total_seconds()
    document = {
        "image": built.id,
        "tag": built.tag,
        "builder": built.builder,
        "base": built.base_digest,
        "labels": dict(built.labels),
        "log": built.records / provenance.LOG,
        "sbom": built.records / provenance.SBOM,
        "provenance": built.records / provenance.PROVENANCE,
        "seconds": round(seconds, 1),
    }
    text = [
        f"{tag}: {built.id[:12]}, built by {chosen.name} in {seconds:.0f} s",
        f"log, SBOM and provenance: {records}",
    ]
    if built.labels.get("vimectl.stand-in") == "yes":
        text.append("This is a stand-in: its memory saver is not for NPUs.")
    return CommandOutput(document, text)


@app.command(
    epilog=epilog(
        "vimectl image verify vimectl:ascend-0.22-a2",
        done="the image is as its labels say",
        failed="the image has a problem",
        lacking="no builder works here",
    )
)
def verify(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="An image's name or id.")],
    builder: BuilderOption = "auto",
    stand_in: Annotated[
        bool, typer.Option("--stand-in", help="Accept a stand-in image, which otherwise fails.")
    ] = False,
    tree: Annotated[
        bool, typer.Option("--tree", help="Also compute the digest of the file tree; reads every file.")
    ] = False,
) -> CommandOutput:
    """Check the patches, memory saver and labels of an image.

    The image is not run.
    """
    from vimectl.images.builders import choose_builder
    from vimectl.images.verify import verify_image

    found = verify_image(image, choose_builder(builder, Host()), stand_in, tree)
    document = {
        "image": found.id,
        "stack": found.stack,
        "stand_in": found.stand_in,
        "labels": dict(found.image.labels),
        "user": found.image.user,
        "patches": [target.as_json() for target in found.patches],
        "tms": [asdict(build) for build in found.builds],
        "report": found.report,
        "checks": [check.as_json() for check in found.checks],
        "tree": found.tree,
        "problems": list(found.problems),
    }
    return CommandOutput(document, _verification_text(image, found), 0 if found.ok else 1)


@app.command(
    "run-args",
    epilog=epilog(
        "vimectl image run-args --stack ascend-0.22",
        "docker run $(vimectl image run-args --stack ascend-0.22) -it vimectl:ascend-0.22-a2",
        "vimectl image run-args --stack ascend-0.22 --compose > compose.yaml",
    ),
)
def run_args(
    stack: ProjectStack = None,
    chip: ChipOption = None,
    compose: Annotated[
        bool, typer.Option("--compose", help="Print a compose file instead of options.")
    ] = False,
    tag: Annotated[
        str | None,
        typer.Option(metavar="TAG", help="The image for --compose; by default the tag that build gives it."),
    ] = None,
) -> CommandOutput:
    """Print the options of `docker run` for this host.

    They are about devices, the driver, shared memory and limits.
    """
    from vimectl.images import run_args as options
    from vimectl.images.plan import make_plan

    image_plan = make_plan(required_stack(stack), chip)
    found = options.run_options(image_plan.stack, Host())
    text = [option.text for option in found]
    if compose:
        text = [options.compose(found, tag or image_plan.default_tag)]
    return CommandOutput({"stack": image_plan.stack.name, "options": list(map(asdict, found))}, text)


def _plan_json(image_plan: ImagePlan) -> dict[str, Any]:
    return {
        "stack": image_plan.stack.name,
        "chip": image_plan.chip,
        "machine": image_plan.machine,
        "python": image_plan.image.python,
        "base": {"image": image_plan.base, "reason": image_plan.base_reason},
        "arguments": image_plan.arguments,
        "sources": list(map(_source_json, image_plan.sources)),
    }


def _source_json(source: ImageSource) -> dict[str, Any]:
    return {
        "name": source.name,
        "kind": source.kind,
        "reason": source.reason,
        "version": source.version,
        "url": source.url,
        "commit": source.commit,
        "sha256": source.sha256,
        "left_out": source.left_out,
    }


def _plan_text(image_plan: ImagePlan) -> list[str | TextTable]:
    on = f" for {image_plan.chip.upper()}" if image_plan.chip else ""
    what = f"{on}, {image_plan.machine}, Python {image_plan.image.python}"
    rows = [["base", image_plan.base, "", image_plan.base_reason]]
    for source in image_plan.sources:
        pin = source.version
        if source.commit:
            pin = f"{source.url} {source.commit}"
        rows.append([source.kind, source.name, pin, source.reason])
    rows += [["argument", name, value, ""] for name, value in image_plan.arguments.items()]
    heading = Markup(f"[bold]{escape_markup(image_plan.stack.name)}[/]{escape_markup(what)}")
    return [heading, TextTable(["what", "name", "pin", "why"], rows)]


def _step_progress(report: ReportPhase) -> OnLine:
    """Return a function that reports the current step and the last line of a builder's output."""
    from vimectl.images.build_failure import STEP

    step = "preparing"

    def on_line(line: str) -> None:
        nonlocal step
        if STEP.match(line):
            step = line if len(line) <= _STEP_WIDTH else f"{line[: _STEP_WIDTH - 3]}..."
            report(PhaseProgress(step))
        elif line.strip():
            report(PhaseProgress(step, detail=line.strip()[:_STEP_WIDTH]))

    return on_line


def _verification_text(image: str, found: ImageVerification) -> Iterator[str | TextTable]:
    what = "a STAND-IN, not for NPUs" if found.stand_in else found.stack
    yield Markup(f"[bold]{escape_markup(image)}[/]: {escape_markup(what)}")
    rows = [["stack", found.stack, ""]]
    rows += [["patches", one.target.package, f"{one.target.version} {one.state}"] for one in found.patches]
    rows += [["tms", one.verdict, f"{one.backend}, {one.note}"] for one in found.builds if one.loads]
    now = Counter(check.status for check in found.checks)
    for when, summary in (("when it was built", found.report["summary"]), ("now", now)):
        counts = [
            f"{summary[status]} {status}" for status in ("pass", "warn", "fail", "skip") if summary[status]
        ]
        rows.append(["doctor", when, ", ".join(counts)])
    rows += [["user", found.image.user, ""], ["image", found.id, ""]]
    rows += [["tree", found.tree, ""]] if found.tree else []
    yield TextTable(["what", "", ""], rows)
    yield from (f"problem: {problem}" for problem in found.problems)
