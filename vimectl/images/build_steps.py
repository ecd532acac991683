"""What the Dockerfiles run in the image while it is built: `python -m vimectl.images.build_steps STEP`.

unpack    hold the folder of sources against its manifest, and unpack those that are built
compile   make byte code of everything that is installed, on all cores
data      print where this vimectl keeps a folder of its data
record    judge the memory saver that was built, and keep what was built with its digests
gate      let the doctor look at what was installed, and keep its report
"""

from __future__ import annotations

import argparse
import compileall
import json
import site
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from vime_runtime.spec.atomic_io import sha256_file
from vime_runtime.spec.errors import CheckFailed, VimeError

from vimectl.doctor import run_checks
from vimectl.env import memory_saver
from vimectl.env.memory_saver.record_build import record_build
from vimectl.env.memory_saver.verify import verify_path
from vimectl.images import image_paths, manifest
from vimectl.recipes.environment import variables
from vimectl.stacks.catalog import load_stack
from vimectl.stacks.installed import distributions
from vimectl.stacks.schema import Stack
from vimectl.util import source_date_epoch
from vimectl.util.console import report_error
from vimectl.util.host import Host
from vimectl.util.resources import data_dir

# What can be looked at without devices; the rest of the doctor is for the machine that the image runs on.
_GATES = ("cann", "python", "packages", "patches", "tms", "environment.preload", "environment.pythonpath")
# What a stand-in cannot have: a memory saver that is known.
STAND_IN_LACKS = ("tms.library",)
_ALLOCATOR = "PYTORCH_NPU_ALLOC_CONF"
_SAVER = "torch_memory_saver"


def main(argv: Sequence[str]) -> int:
    """Run one step; return its exit code."""
    parser = argparse.ArgumentParser(prog="vimectl.images.build_steps")
    steps = parser.add_subparsers(dest="step", required=True)
    step = steps.add_parser("unpack")
    step.add_argument("folder", type=Path)
    step.add_argument("--packages", type=Path, required=True)
    step.add_argument("--memory-saver", type=Path, required=True)
    steps.add_parser("compile")
    step = steps.add_parser("data")
    step.add_argument("name")
    step = steps.add_parser("record")
    step.add_argument("wheels", type=Path, nargs="?")
    step.add_argument("--stand-in", choices=("yes", "no"), default="no")
    steps.add_parser("gate")
    given = parser.parse_args(argv)
    try:
        match given.step:
            case "unpack":
                unpack(given.folder, given.packages, given.memory_saver)
            case "compile":
                compile_all()
            case "data":
                print(data_dir(given.name))
            case "record":
                record(given.wheels, given.stand_in == "yes")
            case "gate":
                gate(Host())
    except VimeError as e:
        report_error(e, "image.inside", as_json=False)
        return e.exit_code
    return 0


def unpack(folder: Path, packages: Path, memory_saver_source: Path) -> None:
    """Unpack the sources: those that become packages into folders of ``packages``, the memory saver's apart.

    Raises:
        CheckFailed: a file is missing or altered, or the base has other packages than the stack.
        UsageError: the folder has no manifest.
    """
    found = manifest.check(folder)
    stack = load_stack(str(folder / image_paths.STACK))
    _based(stack)
    for entry in found.sources:
        if entry.kind != "git":
            continue
        saver = stack.memory_saver is not None and entry.commit == stack.memory_saver.commit
        target = memory_saver_source if saver else packages / entry.name
        target.mkdir(parents=True)
        # One folder is around everything.
        subprocess.run(
            ["tar", "--extract", "--strip-components=1", "--no-same-owner", "--file", folder / entry.path],
            cwd=target,
            check=True,
        )
    print(f"{folder}: {len(found.sources)} sources as the manifest says")


def _based(stack: Stack) -> None:
    """Look whether the base has a stack's packages, or the lock has brought them, before hours of work."""
    report = run_checks(Host(), stack, only=[f"packages.{name}" for name in stack.packages])
    wrong = [
        f"{finding.found}, needed {finding.id.partition('.')[2]} {finding.expected}"
        for finding in report.failures
    ]
    if wrong:
        raise CheckFailed(
            f"the base image does not fit {stack.name}: {'; '.join(wrong)}",
            "name one that has them with --base, or list their wheels in the lock of a stack of your own",
        )


def compile_all() -> None:
    """Compile what is installed for this interpreter: the user that jobs run as may not write there.

    What it says is not asked for: some packages ship templates that are no Python.
    """
    for directory in site.getsitepackages():
        compileall.compile_dir(directory, quiet=2, workers=0)


def record(wheels: Path | None, stand_in: bool) -> None:
    """Judge the memory saver in the folder of built wheels, and write down what was built.

    A build from the pinned source has a digest of its own: that of a compiler's output. It is recorded as
    known in the image, by its SHA-256, if it is for the right accelerator and machine. What stands in for one
    is not recorded, so that nothing ever calls it known.

    Raises:
        CheckFailed: it was built for another accelerator or machine, or is known to be bad.
    """
    image_paths.IMAGE.mkdir(parents=True, exist_ok=True)
    stack = load_stack(str(image_paths.IMAGE / image_paths.STACK))
    built = sorted(wheels.glob("*.whl")) if wheels else []
    host = Host()
    for wheel in built:
        if wheel.name.startswith(_SAVER):
            _record_saver(wheel, stack, host, stand_in)
    written = {
        "schema": "vimectl.image/1",
        "stack": stack.name,
        "stand_in": stand_in,
        "built": [{"file": wheel.name, "sha256": sha256_file(wheel)} for wheel in built],
        "installed": [
            {"name": one.name, "version": one.version, "location": str(one.location)}
            for items in distributions(host).values()
            for one in items
        ],
        "manifest": sha256_file(image_paths.IMAGE / manifest.FILE),
        "at": _now(),
    }
    (image_paths.IMAGE / image_paths.RECORD).write_text(
        json.dumps(written, indent=2) + "\n", encoding="utf-8"
    )


def _record_saver(wheel: Path, stack: Stack, host: Host, stand_in: bool) -> None:
    assert stack.memory_saver is not None
    for build in verify_path(wheel, host, stack):
        if build.verdict not in ("known-good", "unknown") or build.backend == "unknown":
            raise CheckFailed(
                f"{build.path}: {build.verdict}: {build.note or 'linked with no accelerator runtime'}",
                f"build it with CANN from {stack.memory_saver.url} at {stack.memory_saver.commit}",
            )
    if stand_in:
        return
    source = stack.memory_saver
    note = f"built in this image from {source.url} at {source.commit} (tag {source.tag})"
    file = host.path(memory_saver.MACHINE_FILE)
    record_build(wheel, note, into=file, by="vimectl image build", at=_now())
    file.with_suffix(".lock").unlink(missing_ok=True)


def gate(host: Host) -> None:
    """Let the doctor look at what is installed, and keep its report in the image.

    Raises:
        CheckFailed: something is wrong with it; what, and how it is mended.
    """
    written = json.loads((image_paths.IMAGE / image_paths.RECORD).read_text(encoding="utf-8"))
    stack = load_stack(str(image_paths.IMAGE / image_paths.STACK))
    report = run_checks(host, stack, only=_GATES if stack.stack.device == "npu" else _GATES[1:])
    document = {"schema": "vimectl.doctor/1", "ok": report.ok, **report.as_json()}
    (image_paths.IMAGE / image_paths.REPORT).write_text(
        json.dumps(document, indent=2) + "\n", encoding="utf-8"
    )
    allocator(host.environment)
    excused = STAND_IN_LACKS if written["stand_in"] else ()
    failures = [finding for finding in report.failures if finding.id not in excused]
    for finding in failures:
        print(f"{finding.id}: found {finding.found}, needed {finding.expected}", file=sys.stderr)
    if failures:
        first = failures[0]
        raise CheckFailed(f"{first.id}: found {first.found}, needed {first.expected}", first.fix)
    counted = ", ".join(f"{count} {status}" for status, count in report.summary.items() if count)
    print(f"doctor: {counted}")


def allocator(environment: Mapping[str, str]) -> None:
    """Refuse an image that exports expandable segments. Raises CheckFailed."""
    value = environment.get(_ALLOCATOR)
    for variable in variables():
        if variable.name == _ALLOCATOR and value is not None and not variable.accepted(value):
            raise CheckFailed(
                f"the base image exports {_ALLOCATOR}={value}: {variable.reason}",
                "start from an image that leaves it alone, such as the stack's own",
            )


def _now() -> str:
    return source_date_epoch.now().strftime("%Y-%m-%dT%H:%M:%SZ")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
