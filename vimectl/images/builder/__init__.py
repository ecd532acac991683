"""The programs that build images: Docker with BuildKit, Podman and Buildah, behind one protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from vime_runtime.spec.errors import MissingRequirement, unknown

from vimectl.util.host import Host

OnLine = Callable[[str], None]
# What a builder gets to take down its containers and mounts by itself when a build is broken off.
SECONDS_TO_CLEAN = 20


@dataclass(frozen=True)
class Job:
    """One build: which Dockerfile, with which folder as context, with which build arguments.

    ``epoch`` (seconds) is the time that every file and the image get, None for the time of the build.
    ``work`` is a folder for temporary files, which goes away afterwards; ``log`` gets the whole output.
    """

    dockerfile: Path
    context: Path
    base: str
    arguments: Mapping[str, str]
    epoch: int | None
    work: Path
    log: Path


@dataclass(frozen=True)
class Configuration:
    """What an image says of itself. ``digest`` is its id: the digest of its configuration."""

    digest: str
    labels: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    machine: str = ""


class Builder(Protocol):
    """A program that builds images and lets one look into them."""

    name: str

    def trouble(self) -> str | None:
        """Why it does not work on this machine; None when it does."""

    def base_digest(self, job: Job, on_line: OnLine) -> str:
        """Have the base image on this machine, pulled when it is not, and return its digest.

        Raises:
            CheckFailed: it cannot be had.
        """

    def build(self, job: Job, on_line: OnLine) -> str:
        """Build and return the image's id; it has no name yet. What fails leaves nothing behind.

        Raises:
            BuildFailed: a step failed.
        """

    def tag(self, image: str, name: str) -> None:
        """Give an image a name."""

    def remove(self, image: str) -> None:
        """Remove an image that has no name."""

    def configuration(self, image: str) -> Configuration:
        """Read what an image says of itself. Raises UsageError when there is no such image."""

    def version(self) -> str:
        """Its version, as it states it."""

    def read(self, image: str, path: str) -> str:
        """Return a file of an image, for any user. Raises CheckFailed when it cannot be had."""

    def mounted(self, image: str, work: Path) -> AbstractContextManager[Path]:
        """Have an image's file tree at a path for as long as the block runs; ``work`` is an empty folder."""


def all_(host: Host) -> list[Builder]:
    """Return the builders, the preferred one first."""
    from vimectl.images.builder.docker import Docker
    from vimectl.images.builder.storage import Buildah, Podman

    return [Docker(host), Podman(host), Buildah(host)]


def choose(name: str, host: Host) -> Builder:
    """Return the builder called ``name``, or with ``auto`` the first that works on this machine.

    Raises:
        UsageError: there is no builder of that name.
        MissingRequirement: it does not work here, or none does; says why of each, and how to get one.
    """
    known = {builder.name: builder for builder in all_(host)}
    if name != "auto" and name not in known:
        raise unknown("builder", name, ["auto", *known])
    wanted = known.values() if name == "auto" else [known[name]]
    troubles = []
    for builder in wanted:
        trouble = builder.trouble()
        if trouble is None:
            return builder
        troubles.append(f"{builder.name}: {trouble}")
    raise MissingRequirement(
        f"{'no builder works' if name == 'auto' else f'{name} does not work'} on this machine: "
        f"{'; '.join(troubles)}",
        "install one that needs no daemon (apt-get install buildah, dnf install buildah), or start docker's",
    )
