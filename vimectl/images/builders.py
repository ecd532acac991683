"""Call Docker, Podman or Buildah: one command line, and a table of what differs between the three.

Docker's daemon builds with BuildKit, and removes the containers of a build that ends in any way. Podman and
Buildah have no daemon: the containers of an interrupted build stay in their store, which they share.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from vime_runtime.spec.errors import CheckFailed, MissingRequirement, UsageError

from vimectl.images.build_failure import explain
from vimectl.stacks.choices import BuilderName
from vimectl.util.host import Host
from vimectl.util.subprocess import OnLine, run_logged, run_shielded

# The names of the base image and the result while an image is built. Both are removed at the end, and by
# the next build when this one is killed. Podman and Buildah name a container after its image.
_BASE, _RESULT = "localhost/vimectl-build-base", "localhost/vimectl-build-result"
_CONTAINERS = "vimectl-build-base-working-container"
# How long a builder gets to stop its containers when a build is interrupted.
_CLEANUP_SECONDS = 20
_PROBE_SECONDS = 20
# The CPU architectures by the names that Go and the registries use.
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class BuildJob:
    """One build: Dockerfile, build context, base image and build arguments.

    ``base`` is the name of an image on this machine, see ``Builder.pull``. ``machine`` is the CPU
    architecture as ``uname -m`` prints it. ``epoch`` is the timestamp of all files and the image in
    seconds, None for the time of the build. ``work`` is a directory for temporary files; ``log`` gets the
    whole output. ``lock_fd`` is a locked descriptor: the builder inherits it, and so holds the lock until
    it ends.
    """

    dockerfile: Path
    context: Path
    base: str
    machine: str
    arguments: Mapping[str, str]
    epoch: int | None
    work: Path
    log: Path
    lock_fd: int


class ImageIdentity(NamedTuple):
    """An image in a builder's store. ``digest`` is ``sha256:...`` of its manifest, or else of its id."""

    id: str
    architecture: str
    digest: str


@dataclass(frozen=True)
class _Program:
    """A command line: the parts in which the programs differ.

    The first of ``probes`` prints the version, and all succeed where the program can build. ``identity`` is a
    template of `inspect` for the id, the architecture and the digests. ``save`` writes an image to stdout.
    ``list_containers`` prints the names of containers, also those of builds; a daemon needs no such help.
    """

    probes: tuple[tuple[str, ...], ...]
    build: tuple[str, ...]
    identity: str
    save: tuple[str, ...]
    list_containers: tuple[str, ...] = ()
    remove_container: tuple[str, ...] = ()


# Steps do not get the variables of a proxy, which may have a password. With chroot isolation, which works
# wherever these programs do, a step has the network of the builder: see ``_without_network``.
_DAEMONLESS = (
    *("build", "--isolation=chroot", "--http-proxy=false"),
    *("--layers=false", "--force-rm", "--pull=false"),
)
_PROGRAMS = {
    # The client also answers without the daemon; without buildx the builder has no RUN --mount. `docker
    # buildx build` would use the builder that the user selected, which may not see the daemon's images.
    "docker": _Program(
        probes=(("version", "--format={{.Server.Version}}"), ("buildx", "version")),
        build=("build", "--progress=plain", "--network=none"),
        identity='{{.Id}} {{.Architecture}} {{join .RepoDigests " "}}',
        save=("save", "IMAGE"),
    ),
    "podman": _Program(
        probes=(("--version",),),
        build=_DAEMONLESS,
        identity="{{.Id}} {{.Architecture}} {{.Digest}}",
        save=("save", "--quiet", "IMAGE"),
        list_containers=("ps", "--all", "--external", "--format={{.Names}}"),
        remove_container=("rm", "--force"),
    ),
    "buildah": _Program(
        probes=(("--version",),),
        build=_DAEMONLESS,
        identity="{{.FromImageID}} {{.OCIv1.Architecture}} {{.FromImageDigest}}",
        save=("push", "--quiet", "IMAGE", "docker-archive:/dev/stdout"),
        list_containers=("containers", "--all", "--noheading", "--format={{.ContainerName}}"),
        remove_container=("rm",),
    ),
}


class Builder:
    """A program that builds images."""

    def __init__(self, name: str, host: Host) -> None:
        self.name = name
        self.version = ""
        self._host = host
        self._program = _PROGRAMS[name]

    def problem(self) -> str | None:
        """Return why the builder does not work on this machine, None when it does; find its version."""
        for command in self._program.probes:
            answer = self._host.run([self.name, *command], _PROBE_SECONDS)
            if answer.code != 0:
                lines = answer.stderr.split("\n")
                return next((line.strip() for line in lines if line.strip()), f"exit status {answer.code}")
            found = re.search(r"\d+(\.\d+)+[\w.+-]*", answer.stdout)
            self.version = self.version or (found[0] if found else answer.stdout.strip())
        return None

    def identity(self, image: str) -> ImageIdentity | None:
        """Return the identity of an image, None when it is not on this machine."""
        template = f"--format={self._program.identity}"
        answer = run_shielded([self.name, "inspect", "--type=image", template, image])
        if answer.code != 0:
            return None
        id_, architecture, *digests = answer.stdout.split()
        id_ = id_.removeprefix("sha256:")
        return ImageIdentity(id_, architecture, digests[0].rpartition("@")[2] if digests else f"sha256:{id_}")

    def pull(self, image: str, machine: str, log: Path, on_line: OnLine) -> ImageIdentity:
        """Return the identity of a base image; pull it when it is not on this machine.

        Raises:
            CheckFailed, MissingRequirement: it cannot be pulled, or is for another CPU architecture.
            UsageError: it is named by its id.
        """
        platform = _platform(machine)
        found = self.identity(image)
        if found is None:
            on_line(f"pulling {image}")
            self._run([self.name, "pull", platform, image], log, on_line)
            found = self.identity(image)
        if found is None:
            raise CheckFailed(f"{image} was pulled and does not exist", f"see {log}")
        if found.id.startswith(image.removeprefix("sha256:")):
            # Removing its only other name would remove the image.
            raise UsageError(
                f"{image} is the id of an image, which means nothing on another machine",
                f"give it a name: {self.name} tag {image} NAME",
            )
        if found.architecture != ARCHITECTURES[machine]:
            raise CheckFailed(
                f"{image} on this machine is for {found.architecture}, needed {ARCHITECTURES[machine]}",
                f"{self.name} pull {platform} {image}, or name another image with --base",
            )
        return found

    @contextmanager
    def build(self, job: BuildJob, on_line: OnLine) -> Iterator[str]:
        """Build an image and provide its temporary name during a block, in which the caller tags it.

        Afterwards no container and no name of the build is left, and no image that has no other name.

        Raises:
            CheckFailed, MissingRequirement: a step failed; see ``build_failure.explain``.
        """
        self._remove_leftovers()
        try:
            arguments = {**job.arguments, "BASE_IMAGE": job.base}
            more: list[str] = []
            if self._program.list_containers:
                self._command("tag", job.base, _BASE)
                arguments["BASE_IMAGE"] = _BASE
                more = [] if job.epoch is None else [f"--timestamp={job.epoch}"]
            if job.epoch is not None:
                arguments["SOURCE_DATE_EPOCH"] = str(job.epoch)
            command = [
                *(*self._without_network(), self.name, *self._program.build, *more, _platform(job.machine)),
                *(f"--build-arg={name}={value}" for name, value in arguments.items()),
                *(f"--tag={_RESULT}", f"--file={job.dockerfile}", str(job.context)),
            ]
            self._run(command, job.log, on_line, {"TMPDIR": str(job.work)}, job.lock_fd)
            yield _RESULT
        finally:
            self._remove_leftovers()

    def tag(self, image: str, name: str) -> None:
        """Tag an image."""
        self._command("tag", image, name)

    def save_command(self, image: str) -> list[str]:
        """Return the command that writes an image to its standard output, for ``SavedImage``."""
        return [self.name, *(image if word == "IMAGE" else word for word in self._program.save)]

    def _remove_leftovers(self) -> None:
        """Remove the containers and the names of a build. The caller knows that no build is running."""
        if self._program.list_containers:
            listed = run_shielded([self.name, *self._program.list_containers])
            for container in listed.stdout.split():
                if container.startswith(_CONTAINERS):
                    run_shielded([self.name, *self._program.remove_container, container])
        for name in (_RESULT, _BASE):
            run_shielded([self.name, "rmi", name])

    def _without_network(self) -> list[str]:
        """Return a command that runs Podman or Buildah without a network, [] where there is none.

        Only root can create a network namespace. The builder's own user namespace makes other users root.
        """
        unshare = ["unshare", "--net", "--"]
        for command in (unshare, [self.name, "unshare", *unshare]) if self._program.list_containers else ():
            if self._host.run([*command, "true"], _PROBE_SECONDS).code == 0:
                return command
        return []

    def _run(
        self,
        command: list[str],
        log: Path,
        on_line: OnLine,
        variables: Mapping[str, str] | None = None,
        lock_fd: int | None = None,
    ) -> None:
        status, output = run_logged(
            command, log, on_line, variables, lock_fd, cleanup_seconds=_CLEANUP_SECONDS
        )
        if status != 0:
            raise explain(status, output, log)

    def _command(self, *arguments: str) -> None:
        answer = run_shielded([self.name, *arguments])
        if answer.code != 0:
            raise CheckFailed(
                f"{self.name} {' '.join(arguments)}: {answer.stderr.strip()}",
                f"`{self.name} info` shows if it works here",
            )


def _platform(machine: str) -> str:
    return f"--platform=linux/{ARCHITECTURES[machine]}"


def choose_builder(name: BuilderName, host: Host) -> Builder:
    """Return the builder called ``name``, or with ``auto`` the first that works on this machine.

    Raises:
        MissingRequirement: it does not work here, or none does; the message has the reasons.
    """
    reasons = []
    for builder in (Builder(one, host) for one in (_PROGRAMS if name == "auto" else [name])):
        problem = builder.problem()
        if problem is None:
            return builder
        reasons.append(f"{builder.name}: {problem}")
    raise MissingRequirement(
        f"{'no builder works' if name == 'auto' else f'{name} does not work'} on this machine: "
        f"{'; '.join(reasons)}",
        "install one that needs no daemon (apt-get install buildah, dnf install buildah), or start docker's",
    )
