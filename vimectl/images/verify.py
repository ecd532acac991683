"""What an image is: its own word and its file tree, held against each other and against its stack."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import UsageError, VimeError

from vimectl.doctor import Finding, run_checks
from vimectl.doctor.finding import Subject
from vimectl.doctor.patches import examined
from vimectl.env import memory_saver
from vimectl.env.memory_saver import Build
from vimectl.images import build_steps, image_paths, tree
from vimectl.images.builder import Builder, Configuration
from vimectl.patches import TargetStatus
from vimectl.stacks.catalog import load_stack
from vimectl.stacks.schema import Stack
from vimectl.util.host import CommandResult, Host

# What a file system that is only looked at can be examined for.
_GROUPS = ("cann", "packages", "patches", "tms")
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True)
class Verdict:
    """What was found. ``report`` is the doctor's of when it was built, ``findings`` are what it says now.

    ``tree`` is the digest of the file tree, when it was asked for. The image is good when there are no
    ``problems``.
    """

    image: Configuration
    stack: str
    stand_in: bool
    patches: tuple[TargetStatus, ...]
    builds: tuple[Build, ...]
    report: dict[str, Any]
    findings: tuple[Finding, ...]
    tree: str | None
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(image: str, builder: Builder, stand_in: bool = False, with_tree: bool = False) -> Verdict:
    """Look at an image. ``stand_in``: one that says so is what is expected; otherwise that is a problem.

    Raises:
        UsageError: there is no such image, or vimectl did not build it.
        MissingRequirement: the builder cannot mount it for this user.
    """
    configuration = builder.configuration(image)
    with (
        tempfile.TemporaryDirectory(prefix="vimectl-image-") as work,
        builder.mounted(image, Path(work)) as root,
    ):
        return look(root, configuration, stand_in, with_tree)


def look(root: Path, configuration: Configuration, stand_in: bool, with_tree: bool) -> Verdict:
    """As ``verify``, of a file tree with an image's configuration."""
    host = _host(root, configuration)
    written = _read(host, image_paths.RECORD)
    stack = load_stack(str(host.path(f"{image_paths.IMAGE}/{image_paths.STACK}")))
    is_stand_in = written.get("stand_in") is True
    findings = run_checks(host, stack, only=_GROUPS).findings
    patches = tuple(target for package in stack.patches for target in _patches(package, host, stack))
    builds = tuple(memory_saver.judge_installed(host, stack))
    excused = build_steps.STAND_IN_LACKS if stand_in and is_stand_in else ()
    problems = [
        *(
            ["it is a stand-in: it has no kernels and no memory saver for NPUs"]
            if is_stand_in and not stand_in
            else []
        ),
        *_labels(configuration, stack, is_stand_in),
        *_exports(configuration),
        *(
            f"{f.id}: found {f.found}, needed {f.expected}"
            for f in findings
            if f.status == "fail" and f.id not in excused
        ),
    ]
    report = _read(host, image_paths.REPORT)
    return Verdict(
        image=configuration,
        stack=stack.name,
        stand_in=is_stand_in,
        patches=patches,
        builds=builds,
        report=report,
        findings=findings,
        tree=tree.digest(root) if with_tree else None,
        problems=tuple(problems),
    )


def _host(root: Path, configuration: Configuration) -> Host:
    machine = _MACHINES.get(configuration.machine, configuration.machine)

    def run(argv: Sequence[str], timeout: float) -> CommandResult:
        # Which machine an image is for stands in its configuration; nothing in it is run.
        return CommandResult(0, machine) if list(argv) == ["uname", "-m"] else CommandResult(126)

    return Host(root.resolve(), configuration.environment, run)


def _read(host: Host, name: str) -> dict[str, Any]:
    text = host.read(f"{image_paths.IMAGE}/{name}")
    if text is None:
        raise UsageError(
            f"the image has no {image_paths.IMAGE}/{name}: `vimectl image build` did not make it, "
            "or it was changed",
            "look at another file system with: vimectl doctor --root DIR",
        )
    try:
        found = json.loads(text)
    except ValueError as e:
        raise UsageError(f"{image_paths.IMAGE}/{name} in the image is no JSON: {e}") from e
    return found if isinstance(found, dict) else {}


def _patches(package: str, host: Host, stack: Stack) -> list[TargetStatus]:
    try:
        return examined(package, Subject(host, stack))[0]
    except VimeError:
        return []  # the doctor's finding says what is wrong


def _labels(configuration: Configuration, stack: Stack, is_stand_in: bool) -> list[str]:
    """Where the labels do not say what is inside."""
    wanted = {"vimectl.stack": stack.name, "vimectl.stand-in": "yes" if is_stand_in else "no"}
    return [
        f"label {name} is {configuration.labels.get(name)!r}, inside it is {value!r}"
        for name, value in wanted.items()
        if configuration.labels.get(name) != value
    ]


def _exports(configuration: Configuration) -> list[str]:
    problems = []
    try:
        build_steps.allocator(configuration.environment)
    except VimeError as e:
        problems.append(e.message)
    if configuration.user.partition(":")[0] in ("", "0", "root"):
        problems.append("it runs as root")
    return problems
