"""Run one step of the build of an image. The Dockerfiles run `python -m vimectl.images.build_steps STEP`."""

from __future__ import annotations

import compileall
import json
import site
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from vime_runtime.spec.atomic_io import sha256_file
from vime_runtime.spec.errors import CheckFailed, VimeError

from vimectl.doctor.runner import run_checks
from vimectl.env.memory_saver import known_builds
from vimectl.env.memory_saver.pinned_build import check_built, record_built
from vimectl.images import manifest
from vimectl.images.plan import STACK_FILE, git_sources
from vimectl.recipes.environment import variables
from vimectl.releases.commit_archive import check_archive
from vimectl.stacks.catalog import load_stack
from vimectl.stacks.installed import distributions
from vimectl.stacks.schema import Stack
from vimectl.util import source_date_epoch
from vimectl.util.console import report_error
from vimectl.util.host import Host
from vimectl.util.resources import data_dir

# The doctor's checks that need no devices; the others are for the machine that runs the image.
_GATES = ("cann", "python", "packages", "patches", "tms", "environment.preload", "environment.pythonpath")
# The checks that a stand-in image fails: its memory saver is not a known build.
STAND_IN_FAILURES = ("tms.library",)
_ALLOCATOR = "PYTORCH_NPU_ALLOC_CONF"
_SAVER = "torch_memory_saver"


app = typer.Typer(add_completion=False)


def main(argv: Sequence[str]) -> int:
    """Run one step; return its exit code."""
    try:
        app(argv)
    except VimeError as e:
        report_error(e, "image.build", as_json=False)
        return e.exit_code
    return 0


@app.command()
def data(name: str) -> None:
    """Print the path of a data directory of this vimectl."""
    print(data_dir(name))


@app.command()
def unpack(
    folder: Path,
    packages: Annotated[Path, typer.Option()],
    memory_saver: Annotated[Path, typer.Option()],
) -> None:
    """Unpack the sources: each package into a directory in ``packages``, the memory saver into its own.

    Raises:
        CheckFailed: an archive is altered, or the base image has other packages than the stack.
    """
    stack = load_stack(str(folder / STACK_FILE))
    _check_base(stack)
    for source in git_sources(stack):
        is_saver = stack.memory_saver is not None and source.commit == stack.memory_saver.commit
        target = memory_saver if is_saver else packages / source.name
        target.mkdir(parents=True)
        with (folder / source.path).open("rb") as archive:
            check_archive(archive, source.path, source.commit, target)


def _check_base(stack: Stack) -> None:
    """Check for the stack's packages, of the base image or the lock, before hours of compilation."""
    report = run_checks(Host(), stack, only=[f"packages.{name}" for name in stack.packages])
    wrong = [
        f"{check.found}, needed {check.id.partition('.')[2]} {check.expected}" for check in report.failures
    ]
    if wrong:
        raise CheckFailed(
            f"the base image does not match {stack.name}: {'; '.join(wrong)}",
            "name another one with --base, or list the wheels in the lock of a stack file of your own",
        )


@app.command("compile")
def compile_all() -> None:
    """Compile the packages of this interpreter, because the image's user cannot write there.

    Errors are ignored: some packages contain templates that are not valid Python.
    """
    for directory in site.getsitepackages():
        compileall.compile_dir(directory, quiet=2, workers=0)


@app.command()
def record(
    wheels: Annotated[Path | None, typer.Argument()] = None,
    stand_in: Annotated[str, typer.Option(help="yes or no")] = "no",
) -> None:
    """Verify the memory saver in the directory of built wheels, and write the record of the image.

    The digest of a build from the pinned source is not known in advance. If the build is for the right
    backend and machine, its SHA-256 is recorded in the image as known-good. That of a stand-in image is not
    recorded, so it never counts as known.

    Raises:
        CheckFailed: it was built for another backend or machine, or is known to be bad.
    """
    manifest.IMAGE_DIR.mkdir(parents=True, exist_ok=True)
    stack = load_stack(str(manifest.IMAGE_DIR / STACK_FILE))
    built = sorted(wheels.glob("*.whl")) if wheels else []
    host = Host()
    for wheel in built:
        if wheel.name.startswith(_SAVER):
            _record_saver(wheel, stack, host, stand_in == "yes")
    written = {
        "schema": "vimectl.image/1",
        "stack": stack.name,
        "stand_in": stand_in == "yes",
        "built": [{"file": wheel.name, "sha256": sha256_file(wheel)} for wheel in built],
        "installed": [
            {"name": one.name, "version": one.version, "location": one.location}
            for items in distributions(host).values()
            for one in items
        ],
        "manifest": sha256_file(manifest.IMAGE_DIR / manifest.FILE),
        "at": _now(),
    }
    _write_json(manifest.IMAGE_RECORD, written)


def _record_saver(wheel: Path, stack: Stack, host: Host, stand_in: bool) -> None:
    builds = check_built(wheel, stack, host)
    if not stand_in:
        file = host.path(known_builds.MACHINE_FILE)
        record_built(builds, stack, "vimectl image build", file, _now())


@app.command()
def gate() -> None:
    """Run the doctor on the installed packages, and write its report into the image.

    Raises:
        CheckFailed: a check failed; the message has what was found and the fix.
    """
    host = Host()
    written = json.loads((manifest.IMAGE_DIR / manifest.IMAGE_RECORD).read_text(encoding="utf-8"))
    stack = load_stack(str(manifest.IMAGE_DIR / STACK_FILE))
    report = run_checks(host, stack, only=_GATES if stack.stack.device == "npu" else _GATES[1:])
    _write_json(manifest.IMAGE_REPORT, {"schema": "vimectl.doctor/1", "ok": report.ok, **report.as_json()})
    check_allocator(host.environment)
    excused = STAND_IN_FAILURES if written["stand_in"] else ()
    failures = [check for check in report.failures if check.id not in excused]
    messages = [f"{check.id}: found {check.found}, needed {check.expected}" for check in failures]
    if failures:
        print("\n".join(messages), file=sys.stderr)
        raise CheckFailed(messages[0], failures[0].fix)
    counted = ", ".join(f"{count} {status}" for status, count in report.summary.items() if count)
    print(f"doctor: {counted}")


def check_allocator(environment: Mapping[str, str]) -> None:
    """Raise CheckFailed when an image exports a setting of the NPU allocator that breaks a colocated run."""
    value = environment.get(_ALLOCATOR)
    for variable in variables():
        if variable.name == _ALLOCATOR and value is not None and not variable.accepted(value):
            raise CheckFailed(
                f"the base image exports {_ALLOCATOR}={value}: {variable.reason}",
                "use a base image that does not set it, such as the stack's own",
            )


def _write_json(name: str, document: Mapping[str, object]) -> None:
    (manifest.IMAGE_DIR / name).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _now() -> str:
    return source_date_epoch.now().strftime("%Y-%m-%dT%H:%M:%SZ")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
