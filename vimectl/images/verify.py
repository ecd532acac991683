"""Verify an image: compare its labels, its record and its files with each other and with its stack."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from vime_runtime.spec.errors import UsageError, VimeError

from vimectl.doctor.check import CheckResult, Status
from vimectl.doctor.facts import Unavailable
from vimectl.doctor.facts.inputs import read_patch_state
from vimectl.doctor.runner import DoctorReport, run_checks
from vimectl.env.memory_saver.verify import SaverBuild, verify_installed
from vimectl.images import build_steps, manifest
from vimectl.images.builders import ARCHITECTURES, Builder
from vimectl.images.plan import STACK_FILE
from vimectl.images.saved_image import ImageConfiguration, SavedImage, tree_digest
from vimectl.patches.state import TargetStatus
from vimectl.stacks.catalog import load_stack
from vimectl.stacks.schema import Stack
from vimectl.util.directory_lock import explain_disk_errors
from vimectl.util.host import CommandResult, Host

# The groups of doctor checks that only need a file system.
_GROUPS = ("cann", "packages", "patches", "tms")
_MACHINES = {name: machine for machine, name in ARCHITECTURES.items()}


@dataclass(frozen=True)
class ImageVerification:
    """The result of verifying an image, which is good when there are no ``problems``.

    ``report`` is the doctor's JSON report from the build, ``checks`` are its results now. ``tree`` is the
    digest of the file tree if it was requested.
    """

    id: str
    image: ImageConfiguration
    stack: str
    stand_in: bool
    patches: tuple[TargetStatus, ...]
    builds: tuple[SaverBuild, ...]
    report: dict[str, Any]
    checks: tuple[CheckResult, ...]
    tree: str | None
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


def verify_image(
    image: str, builder: Builder, stand_in: bool = False, with_tree: bool = False
) -> ImageVerification:
    """Verify an image. With ``stand_in`` a stand-in image is accepted; otherwise it is a problem.

    Raises:
        UsageError: there is no such image, or vimectl did not build it.
        CheckFailed: the builder cannot save it.
        MissingRequirement: there is no space for its files in TMPDIR.
    """
    identity = builder.identity(image)
    if identity is None:
        raise UsageError(f"no image {image} in {builder.name}", f"`{builder.name} images` lists them")
    saved = SavedImage(builder.save_command(image))
    configuration = saved.configuration
    with tempfile.TemporaryDirectory(prefix="vimectl-image-") as work:
        root = Path(work)
        with explain_disk_errors(root, "free some space, or set TMPDIR to a directory on another disk"):
            lines = saved.extract(root)
        host = _host(root, configuration)
        is_stand_in = _read_json(host, manifest.IMAGE_RECORD).get("stand_in") is True
        stack = load_stack(str(host.path(f"{manifest.IMAGE_DIR}/{STACK_FILE}")))
        examined = run_checks(host, stack, only=_GROUPS)
        checks = examined.results
        patched = {f"patches.{package}" for package in stack.patches}
        excused = build_steps.STAND_IN_FAILURES if stand_in and is_stand_in else ()
        problems = [
            *_configuration_problems(configuration, stack, is_stand_in),
            *(
                f"{check.id}: found {check.found}, needed {check.expected}"
                for check in checks
                if check.status == "fail" and check.id not in excused
            ),
            *(
                f"{check.id}: not checked: {check.found}"
                for check in checks
                if check.status == "skip" and check.id in patched
            ),
        ]
        if is_stand_in and not stand_in:
            problems.insert(0, "it is a stand-in: its memory saver is not for NPUs")
        return ImageVerification(
            id=identity.id,
            image=configuration,
            stack=stack.name,
            stand_in=is_stand_in,
            patches=tuple(
                status for package in stack.patches for status in _patches(package, host, examined)
            ),
            builds=tuple(verify_installed(host, stack)),
            report=_read_report(host),
            checks=checks,
            tree=tree_digest(lines) if with_tree else None,
            problems=tuple(problems),
        )


def _host(root: Path, configuration: ImageConfiguration) -> Host:
    machine = _MACHINES.get(configuration.machine, configuration.machine)

    def run(argv: Sequence[str], timeout: float) -> CommandResult:
        # Nothing in the image is run; its configuration has the machine.
        return CommandResult(0, machine) if list(argv) == ["uname", "-m"] else CommandResult(126)

    return Host(root.resolve(), configuration.environment, run)


def _read_json(host: Host, name: str) -> dict[str, Any]:
    text = host.read(f"{manifest.IMAGE_DIR}/{name}")
    if text is None:
        raise UsageError(
            f"the image has no {manifest.IMAGE_DIR}/{name}: `vimectl image build` did not build it, "
            "or it was changed",
            "check another file system with: vimectl doctor --root DIR",
        )
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise UsageError(
            f"{manifest.IMAGE_DIR}/{name} in the image is not JSON: {e}", "build the image again"
        ) from e
    return found if isinstance(found, dict) else {}


def _read_report(host: Host) -> dict[str, Any]:
    report = _read_json(host, manifest.IMAGE_REPORT)
    summary = report.get("summary")
    if not isinstance(summary, dict) or not all(
        isinstance(summary.get(one), int) for one in get_args(Status)
    ):
        raise UsageError(
            f"{manifest.IMAGE_DIR}/{manifest.IMAGE_REPORT} in the image is not a report of the doctor",
            "build the image again",
        )
    return report


def _patches(package: str, host: Host, examined: DoctorReport) -> list[TargetStatus]:
    """Return the state of a package, with its paths in the image."""
    try:
        found = read_patch_state(host, examined.stack, package)[0]
    except (VimeError, Unavailable):
        return []  # the doctor's check reports it
    return [_with_image_paths(status, examined.facts.without_root) for status in found]


def _with_image_paths(status: TargetStatus, without_root: Callable[[str], str]) -> TargetStatus:
    target, series, unfinished = status.target, status.series, status.unfinished
    return status._replace(
        target=target._replace(location=Path(without_root(str(target.location)) or "/")),
        series=series and series._replace(name=without_root(series.name)),
        unfinished=unfinished and unfinished._replace(message=without_root(unfinished.message)),
    )


def _configuration_problems(
    configuration: ImageConfiguration, stack: Stack, is_stand_in: bool
) -> Iterator[str]:
    expected = {"vimectl.stack": stack.name, "vimectl.stand-in": "yes" if is_stand_in else "no"}
    for name, value in expected.items():
        if configuration.labels.get(name) != value:
            yield f"label {name} is {configuration.labels.get(name)!r}, in the image it is {value!r}"
    try:
        build_steps.check_allocator(configuration.environment)
    except VimeError as e:
        yield e.message
    if configuration.user.partition(":")[0] in ("", "0", "root"):
        yield "it runs as root"
