"""Docker, Podman and Buildah, and the choice of the one that works on this machine.

Docker's daemon builds with BuildKit, and cleans up after an interrupted build. Buildah and Podman have no
daemon and share a store of images and containers.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import platformdirs
from vime_runtime.spec.errors import CheckFailed, MissingRequirement, unknown

from vimectl.images.builder.base import PROBE_SECONDS, Builder, BuildJob, ImageConfiguration
from vimectl.util.directory_lock import lock_directory
from vimectl.util.host import Host
from vimectl.util.subprocess import OnLine, run_shielded

# The alias of the base image during a build. Working containers are named after their image, so this prefix
# identifies those of a build, including one that was killed.
_ALIAS = "localhost/vimectl-build"
_CONTAINERS = "vimectl-build-working-container"


class Docker(Builder):
    name = "docker"
    # The client also answers without the daemon, which builds; the old builder has no RUN --mount.
    probes = (("version", "--format", "{{.Server.Version}}"), ("buildx", "version"))
    reason_line = 0

    def build(self, job: BuildJob, on_line: OnLine) -> str:
        id_file = job.work / "image-id"
        command = [
            *(self.name, "buildx", "build", "--progress=plain", "--load", "--network=none"),
            *self._build_arguments(job, job.base),
            *(f"--iidfile={id_file}", f"--file={job.dockerfile}", str(job.context)),
        ]
        self._run(command, job, on_line)
        return id_file.read_text(encoding="ascii").strip()

    def version(self) -> str:
        return self._command("version", "--format", "{{.Server.Version}}")

    @contextmanager
    def mounted(self, image: str, work: Path) -> Iterator[Path]:
        # The daemon cannot mount an image for other processes, so the tree is exported.
        container = self._command("create", image)
        try:
            tree, archive = work / "tree", work / "tree.tar"
            tree.mkdir()
            self._command("export", f"--output={archive}", container)
            unpacked = run_shielded(["tar", "--extract", "--file", str(archive), "--directory", str(tree)])
            archive.unlink()
            if unpacked.code != 0:
                raise CheckFailed(f"unpacking {image}: {unpacked.stderr.strip()}", f"look at {work}")
            yield tree
        finally:
            run_shielded([self.name, "rm", "--force", container])

    def _manifest_digest(self, inspected: dict[str, Any]) -> str:
        digests = inspected.get("RepoDigests") or []
        return str(digests[0].rpartition("@")[2] if digests else inspected["Id"])


class _StorageBuilder(Builder):
    """The base class of Buildah and Podman."""

    build_command: tuple[str, ...]
    list_command: tuple[str, ...]
    remove_container: tuple[str, ...]
    remove_alias: str
    never_pull: str

    def build(self, job: BuildJob, on_line: OnLine) -> str:
        with _build_lock(on_line):
            self._remove_leftovers()
            id_file = job.work / "image-id"
            try:
                self._command("tag", job.base, _ALIAS)
                command = [
                    *(*self._prefix(), self.name, *self.build_command, *self._build_arguments(job, _ALIAS)),
                    *([] if job.epoch is None else ["--timestamp", str(job.epoch)]),
                    *("--layers=false", "--force-rm", self.never_pull, f"--iidfile={id_file}"),
                    *(f"--file={job.dockerfile}", str(job.context)),
                ]
                self._run(command, job, on_line, {"TMPDIR": str(job.work)})
                return id_file.read_text(encoding="ascii").strip().removeprefix("sha256:")
            except BaseException:
                # The image may exist already when the interruption comes.
                if id_file.is_file() and (image := id_file.read_text(encoding="ascii").strip()):
                    self.remove(image)
                raise
            finally:
                self._remove_leftovers()

    def _prefix(self) -> list[str]:
        return []

    def _remove_leftovers(self) -> None:
        """Remove the containers of a build with their mounts, and the alias of its base image."""
        listed = run_shielded([self.name, *self.list_command])
        with suppress(ValueError):
            for container in json.loads(listed.stdout or "[]") or []:
                # Podman's key, and Buildah's.
                for name in container.get("Names") or [container.get("containername", "")]:
                    if name.startswith(_CONTAINERS):
                        run_shielded([self.name, *self.remove_container, name])
        if self._inspect(_ALIAS) is not None:
            run_shielded([self.name, self.remove_alias, _ALIAS])

    def _require_root(self) -> None:
        if os.geteuid() != 0:
            raise MissingRequirement(
                f"{self.name} mounts images for root only",
                f"run it in the user's own namespace: {self.name} unshare vimectl image verify ...",
            )


class Buildah(_StorageBuilder):
    name = "buildah"
    build_command = ("build",)
    list_command = ("containers", "--all", "--json")
    inspect_command = ("inspect", "--type=image")
    remove_container = ("rm",)
    remove_alias = "rmi"
    never_pull = "--pull-never"

    def read(self, image: str, path: str) -> str:
        container = self._command("from", "--pull-never", image)
        try:
            return self._command("run", "--isolation=chroot", "--user=0", container, "--", "cat", path)
        finally:
            run_shielded([self.name, "rm", container])

    @contextmanager
    def mounted(self, image: str, work: Path) -> Iterator[Path]:
        self._require_root()
        name = f"vimectl-look-{secrets.token_hex(8)}"
        try:
            self._command("from", "--pull-never", "--name", name, image)
            yield Path(self._command("mount", name))
        finally:
            run_shielded([self.name, "umount", name])
            run_shielded([self.name, "rm", name])

    def _prefix(self) -> list[str]:
        # With chroot isolation a step has buildah's network: none, where a network namespace can be created.
        unshare = ["unshare", "--net", "--"]
        return unshare if self._host.run([*unshare, "true"], PROBE_SECONDS).code == 0 else []

    def _build_arguments(self, job: BuildJob, base: str) -> list[str]:
        # Chroot isolation needs no container runtime and works wherever buildah does.
        isolation = self._host.environment.get("BUILDAH_ISOLATION", "chroot")
        return [f"--isolation={isolation}", *super()._build_arguments(job, base)]

    def _configuration(self, inspected: dict[str, Any]) -> ImageConfiguration:
        image = inspected["OCIv1"]
        return ImageConfiguration.of(
            inspected["FromImageID"], image.get("config", {}), image.get("architecture", "")
        )

    def _manifest_digest(self, inspected: dict[str, Any]) -> str:
        return str(inspected["FromImageDigest"])


class Podman(_StorageBuilder):
    name = "podman"
    build_command = ("build", "--network=none")
    list_command = ("ps", "--all", "--external", "--format=json")
    remove_container = ("rm", "--force")
    remove_alias = "untag"
    never_pull = "--pull=never"

    @contextmanager
    def mounted(self, image: str, work: Path) -> Iterator[Path]:
        self._require_root()
        try:
            yield Path(self._command("image", "mount", image))
        finally:
            run_shielded([self.name, "image", "umount", image])

    def _manifest_digest(self, inspected: dict[str, Any]) -> str:
        return str(inspected["Digest"])


@contextmanager
def _build_lock(on_line: OnLine) -> Iterator[None]:
    """Allow one build of this user at a time, so that leftovers cannot be those of a running build."""
    folder = Path(platformdirs.user_cache_dir("vimectl")) / "image-build-lock"
    with lock_directory(folder, lambda: on_line("waiting for another image build")):
        yield


def choose_builder(name: str, host: Host) -> Builder:
    """Return the builder called ``name``, or with ``auto`` the first that works on this machine.

    Raises:
        UsageError: there is no builder of that name.
        MissingRequirement: it does not work here, or none does; the message has the reasons.
    """
    known: dict[str, Builder] = {kind.name: kind(host) for kind in (Docker, Podman, Buildah)}
    if name != "auto" and name not in known:
        raise unknown("builder", name, ["auto", *known])
    wanted = known.values() if name == "auto" else [known[name]]
    reasons = []
    for builder in wanted:
        reason = builder.unusable()
        if reason is None:
            return builder
        reasons.append(f"{builder.name}: {reason}")
    raise MissingRequirement(
        f"{'no builder works' if name == 'auto' else f'{name} does not work'} on this machine: "
        f"{'; '.join(reasons)}",
        "install one that needs no daemon (apt-get install buildah, dnf install buildah), or start docker's",
    )
