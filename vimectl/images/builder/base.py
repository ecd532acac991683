"""Define the interface of the image builders, and implement what all of them share."""

from __future__ import annotations

import json
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import CheckFailed, UsageError

from vimectl.images.builder.failure import explain
from vimectl.util.host import Host
from vimectl.util.subprocess import OnLine, run_logged, run_shielded

# How long a builder gets to remove its containers and mounts when a build is interrupted.
_CLEANUP_SECONDS = 20
PROBE_SECONDS = 20


@dataclass(frozen=True)
class BuildJob:
    """One build: Dockerfile, build context, base image and build arguments.

    ``epoch`` is the timestamp of all files and the image in seconds, None for the time of the build. ``work``
    is a directory for temporary files, deleted afterwards; ``log`` gets the whole output.
    """

    dockerfile: Path
    context: Path
    base: str
    arguments: Mapping[str, str]
    epoch: int | None
    work: Path
    log: Path


@dataclass(frozen=True)
class ImageConfiguration:
    """The configuration of an image. ``digest`` is that of the configuration, the image's id."""

    digest: str
    labels: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    machine: str = ""

    @classmethod
    def of(cls, digest: str, config: Mapping[str, Any], machine: str) -> ImageConfiguration:
        """Parse the ``config`` object of the OCI image format."""
        pairs = [entry.partition("=") for entry in config.get("Env") or []]
        return cls(
            digest=digest.removeprefix("sha256:"),
            labels=config.get("Labels") or {},
            environment={name: value for name, _, value in pairs},
            user=config.get("User") or "",
            machine=machine,
        )


class Builder(ABC):
    """A program that builds images and gives access to their files."""

    name: str
    inspect_command: tuple[str, ...] = ("image", "inspect")
    # Commands that succeed where the builder works, and the line of their output with the reason if not.
    probes: tuple[tuple[str, ...], ...] = (("info",),)
    reason_line = -1

    def __init__(self, host: Host) -> None:
        self._host = host

    def unusable(self) -> str | None:
        """Return why the builder does not work on this machine, None when it does."""
        for command in self.probes:
            answer = self._host.run([self.name, *command], PROBE_SECONDS)
            if answer.code != 0:
                lines = [line.strip() for line in answer.stderr.splitlines() if line.strip()]
                return lines[self.reason_line] if lines else f"exit status {answer.code}"
        return None

    @abstractmethod
    def build(self, job: BuildJob, on_line: OnLine) -> str:
        """Build and return the image's id, without a tag. A failed build leaves nothing behind.

        Raises:
            CheckFailed, MissingRequirement: a step failed; see ``failure.explain``.
        """

    @abstractmethod
    def mounted(self, image: str, work: Path) -> AbstractContextManager[Path]:
        """Provide the image's file tree at a path during a block; ``work`` is an empty directory."""

    def version(self) -> str:
        """Return the version of the builder."""
        return self._command("--version").rpartition("version ")[2]

    def _configuration(self, inspected: dict[str, Any]) -> ImageConfiguration:
        config, machine = inspected.get("Config") or {}, inspected.get("Architecture", "")
        return ImageConfiguration.of(inspected["Id"], config, machine)

    @abstractmethod
    def _manifest_digest(self, inspected: dict[str, Any]) -> str: ...

    def base_digest(self, job: BuildJob, on_line: OnLine) -> str:
        """Pull the base image unless it is on this machine, and return its digest.

        Raises:
            CheckFailed, MissingRequirement: it cannot be pulled.
        """
        inspected = self._inspect(job.base)
        if inspected is None:
            on_line(f"pulling {job.base}")
            self._run([self.name, "pull", job.base], job, on_line)
            inspected = self._inspect(job.base)
        if inspected is None:
            raise CheckFailed(f"{job.base} was pulled and does not exist", f"see {job.log}")
        return self._manifest_digest(inspected)

    def tag(self, image: str, name: str) -> None:
        """Tag an image."""
        self._command("tag", image, name)

    def remove(self, image: str) -> None:
        """Remove an image that has no tag."""
        run_shielded([self.name, "rmi", "--force", image])

    def configuration(self, image: str) -> ImageConfiguration:
        """Return the configuration of an image. Raises UsageError when there is no such image."""
        inspected = self._inspect(image)
        if inspected is None:
            raise UsageError(f"no image {image} in {self.name}", f"`{self.name} images` lists them")
        return self._configuration(inspected)

    def read(self, image: str, path: str) -> str:
        """Return the text of a file in an image, as any user. Raises CheckFailed when it cannot be read."""
        container = self._command("create", image)
        try:
            with tempfile.TemporaryDirectory(prefix="vimectl-image-") as work:
                self._command("cp", f"{container}:{path}", f"{work}/file")
                return Path(work, "file").read_text(encoding="utf-8")
        finally:
            run_shielded([self.name, "rm", "--force", container])

    def _run(
        self, command: list[str], job: BuildJob, on_line: OnLine, variables: Mapping[str, str] | None = None
    ) -> None:
        """Run a long command with its output in the job's log. Raises as ``failure.explain``."""
        status, output = run_logged(command, job.log, on_line, variables, cleanup_seconds=_CLEANUP_SECONDS)
        if status != 0:
            raise explain(status, output, job.log)

    def _build_arguments(self, job: BuildJob, base: str) -> list[str]:
        given = dict(job.arguments) | {"BASE_IMAGE": base}
        if job.epoch is not None:
            given["SOURCE_DATE_EPOCH"] = str(job.epoch)
        return [f"--build-arg={name}={value}" for name, value in given.items()]

    def _inspect(self, image: str) -> dict[str, Any] | None:
        answer = run_shielded([self.name, *self.inspect_command, image])
        if answer.code != 0:
            return None
        found = json.loads(answer.stdout)
        first: dict[str, Any] = found[0] if isinstance(found, list) else found
        return first

    def _command(self, *arguments: str) -> str:
        answer = run_shielded([self.name, *arguments])
        if answer.code != 0:
            raise CheckFailed(
                f"{self.name} {' '.join(arguments)}: {answer.stderr.strip()}",
                f"`{self.name} info` shows if it works here",
            )
        return answer.stdout.strip()
