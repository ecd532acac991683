"""`vimectl stack`: list, show and make version sets, and detect the installed one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from vime_runtime.spec.errors import UsageError

from vimectl.cli import complete
from vimectl.cli.help_text import CommandGroup, epilog
from vimectl.cli.output import CommandOutput, TextTable
from vimectl.stacks.catalog import load_stack, lock_path, stack_file, stack_names
from vimectl.util.console import FileText, err
from vimectl.util.host import Host
from vimectl.util.resources import checkout_root

if TYPE_CHECKING:
    from vimectl.patches.port.new_stack import NewStack

app = CommandGroup(help="List the supported version sets, and detect the installed one.")


@app.command("list", epilog=epilog("vimectl stack list", "vimectl stack list --json"))
def list_() -> CommandOutput:
    """List the stacks.

    The patches of a tested stack were tested on the released sources. Of an
    untested stack only the versions are known.
    """
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


@app.command(epilog=epilog("vimectl stack show ascend-0.22", "vimectl stack show ./vimectl.toml"))
def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="STACK",
            help="A stack's name, or the path of a stack file.",
            autocompletion=complete.stacks,
        ),
    ],
) -> CommandOutput:
    """Print the file of a stack.

    It has versions, pinned sources, images and patch series, and the source of each fact.
    """
    chosen = load_stack(name)
    text = stack_file(name).read_text(encoding="utf-8")
    return CommandOutput({"stack": chosen.model_dump(), "proven": chosen.tested}, [FileText(text)])


@app.command(
    epilog=epilog(
        "vimectl stack detect",
        done="a stack is installed",
        failed="no stack is, or versions differ from the nearest one",
    )
)
def detect() -> CommandOutput:
    """Print the installed stack, or the nearest one.

    It is that of this interpreter. For the nearest one, the differences are printed.
    """
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


@app.command(
    epilog=epilog(
        "vimectl stack new ascend-0.31 --vllm-ascend 0.31.0rc1",
        failed="a patch has conflicts, which are printed",
    )
)
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the stack, like ascend-0.31.")],
    vllm_ascend: Annotated[str, typer.Option(metavar="V", help="The release of vllm-ascend.")],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write DIR/NAME.toml and DIR/patches; by default in the checkout, or the working directory.",
        ),
    ] = None,
) -> CommandOutput:
    """Make the stack of a vllm-ascend release, and port the patches.

    The versions are those in the documents of the release. Check what is
    printed, and read the ported patches: one that applies may still be wrong
    for the release.
    """
    from packaging.version import InvalidVersion, Version

    from vimectl.patches.port.new_stack import make_stack

    try:
        Version(vllm_ascend)
    except InvalidVersion as e:
        raise UsageError(f"--vllm-ascend {vllm_ascend}: not a version", "give one like 0.23.0rc1") from e
    root = checkout_root()
    directory = out or Path()
    if out is None and root:
        data, patches = root / "vimectl" / "stacks" / "data", root / "patches"
    else:
        data, patches = directory, directory / "patches"
    made = make_stack(name, vllm_ascend, data, patches)
    document = {
        "path": made.path,
        "series": [
            {
                **{key: getattr(one, key) for key in ("package", "version", "source", "result")},
                "written": one.outcome.written if one.outcome else None,
                "patches": [patch.as_json() for patch in one.outcome.patches] if one.outcome else [],
                "conflicts": one.outcome.conflicts if one.outcome else None,
            }
            for one in made.series
        ],
        "disagreements": made.disagreements,
    }
    conflict = any(one.result == "conflict" for one in made.series)
    return CommandOutput(document, _new_text(made), 1 if conflict else 0)


def _new_text(made: NewStack) -> Iterator[str]:
    """Yield what was written; what is left to do is printed on stderr."""
    yield f"{made.path}: written"
    for one in made.series:
        if one.result == "same":
            yield f"{one.package} {one.version}: the series of {one.source}, which patches the same files"
        elif one.outcome and one.outcome.written:
            yield f"{one.package} {one.version}: ported from {one.source} to {one.outcome.written}"
    for text in made.disagreements:
        err.note(f"the documents of the release disagree: {text}")
    for one in made.series:
        for slug, reason in one.unneeded.items():
            err.note(f"check that {one.package} {one.version} does without {slug}: {reason}")
        if one.outcome and one.outcome.conflicts:
            folder, command = one.outcome.conflicts, one.outcome.command
            err.print(f"conflicts: edit the files in {folder}, see its README.txt, then\n  {command}")
