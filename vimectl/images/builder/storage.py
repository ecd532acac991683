"""Buildah and Podman: two programs over one store of images and containers, neither with a daemon."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import platformdirs
from vime_runtime.spec.errors import CheckFailed, MissingRequirement, UsageError

from vimectl.images.builder import SECONDS_TO_CLEAN, Configuration, Job, OnLine
from vimectl.images.builder.failure import explain
from vimectl.util.host import Host
from vimectl.util.subprocess import follow, quietly

# The base goes by this name while it is built upon. A working container is called after its image, so these
# are the containers of a build, also of one that was killed and could not clean up: nobody else has them.
_ALIAS = "localhost/vimectl-build"
_CONTAINERS = "vimectl-build-working-container"
_SECONDS = 20


class _Storage:
    """What the two have in common."""

    name: str
    build_command: tuple[str, ...]
    list_command: tuple[str, ...]
    inspect_command: tuple[str, ...]
    never_pull: str

    def __init__(self, host: Host) -> None:
        self._host = host

    def trouble(self) -> str | None:
        answer = self._host.run([self.name, "info"], _SECONDS)
        if answer.code == 0:
            return None
        last = [line for line in answer.stderr.splitlines() if line.strip()][-1:]
        return last[0].strip() if last else f"exit status {answer.code}"

    def base_digest(self, job: Job, on_line: OnLine) -> str:
        if (there := self._inspected(job.base)) is None:
            on_line(f"pulling {job.base}")
            status, output = follow(
                [self.name, "pull", job.base], {}, None, job.log, on_line, SECONDS_TO_CLEAN
            )
            if status != 0:
                raise explain(status, output, job.log)
            there = self._inspected(job.base)
        if there is None:
            raise CheckFailed(f"{job.base} was pulled and is not there", f"see {job.log}")
        return self._digest(there)

    def build(self, job: Job, on_line: OnLine) -> str:
        with _alone(on_line):
            self._sweep()
            written = job.work / "image-id"
            try:
                self._do("tag", job.base, _ALIAS)
                status, output = follow(
                    [*self._around(), self.name, *self.build_command, *self._arguments(job, written)],
                    {"TMPDIR": str(job.work)},
                    None,
                    job.log,
                    on_line,
                    SECONDS_TO_CLEAN,
                )
                if status != 0:
                    raise explain(status, output, job.log)
                return written.read_text(encoding="ascii").strip().removeprefix("sha256:")
            except BaseException:
                # It was made, and then something came between.
                if written.is_file() and (made := written.read_text(encoding="ascii").strip()):
                    self.remove(made)
                raise
            finally:
                self._sweep()

    def tag(self, image: str, name: str) -> None:
        self._do("tag", image, name)

    def remove(self, image: str) -> None:
        quietly([self.name, "rmi", "--force", image])

    def configuration(self, image: str) -> Configuration:
        found = self._inspected(image)
        if found is None:
            raise UsageError(f"no image {image} among those of {self.name}", f"{self.name} images lists them")
        return self._configuration(found)

    def version(self) -> str:
        return self._do("--version").rpartition("version ")[2]

    def _configuration(self, found: dict[str, Any]) -> Configuration:
        raise NotImplementedError

    def _digest(self, found: dict[str, Any]) -> str:
        raise NotImplementedError

    def _around(self) -> list[str]:
        return []

    def _arguments(self, job: Job, written: Path) -> list[str]:
        given = dict(job.arguments) | {"BASE_IMAGE": _ALIAS}
        times = [] if job.epoch is None else ["--timestamp", str(job.epoch)]
        if job.epoch is not None:
            given["SOURCE_DATE_EPOCH"] = str(job.epoch)
        return [
            *(f"--build-arg={name}={value}" for name, value in given.items()),
            *times,
            *("--layers=false", "--force-rm", self.never_pull, f"--iidfile={written}"),
            f"--file={job.dockerfile}",
            str(job.context),
        ]

    def _sweep(self) -> None:
        """Remove what a build has, or left: its containers with their mounts, and the name of its base."""
        listed = quietly([self.name, *self.list_command])
        with suppress(ValueError):
            for container in json.loads(listed.stdout or "[]") or []:
                for name in self._names(container):
                    if name.startswith(_CONTAINERS):
                        quietly([self.name, "rm", *(["--force"] if self.name == "podman" else []), name])
        if self._inspected(_ALIAS) is not None:
            quietly([self.name, "untag" if self.name == "podman" else "rmi", _ALIAS])

    def _names(self, container: dict[str, Any]) -> list[str]:
        raise NotImplementedError

    def _inspected(self, image: str) -> dict[str, Any] | None:
        answer = quietly([self.name, *self.inspect_command, image])
        if answer.code != 0:
            return None
        found = json.loads(answer.stdout)
        first: dict[str, Any] = found[0] if isinstance(found, list) else found
        return first

    def _do(self, *arguments: str) -> str:
        answer = quietly([self.name, *arguments])
        if answer.code != 0:
            raise CheckFailed(
                f"{self.name} {' '.join(arguments)}: {answer.stderr.strip()}",
                f"`{self.name} info` says whether it works here",
            )
        return answer.stdout.strip()

    def _as_root(self) -> None:
        if os.geteuid() != 0:
            raise MissingRequirement(
                f"{self.name} mounts images for root alone",
                f"run it inside the user's own namespace: {self.name} unshare vimectl image verify ...",
            )


class Buildah(_Storage):
    name = "buildah"
    build_command = ("build",)
    list_command = ("containers", "--all", "--json")
    inspect_command = ("inspect", "--type=image")
    never_pull = "--pull-never"

    def read(self, image: str, path: str) -> str:
        container = self._do("from", "--pull-never", image)
        try:
            return self._do("run", "--isolation=chroot", "--user=0", container, "--", "cat", path)
        finally:
            quietly([self.name, "rm", container])

    @contextmanager
    def mounted(self, image: str, work: Path) -> Iterator[Path]:
        self._as_root()
        name = f"vimectl-look-{secrets.token_hex(8)}"
        try:
            self._do("from", "--pull-never", "--name", name, image)
            yield Path(self._do("mount", name))
        finally:
            quietly([self.name, "umount", name])
            quietly([self.name, "rm", name])

    def _around(self) -> list[str]:
        # With chroot isolation a step has the network that buildah has: none, where one may arrange it.
        without = ["unshare", "--net", "--"]
        return without if self._host.run([*without, "true"], _SECONDS).code == 0 else []

    def _arguments(self, job: Job, written: Path) -> list[str]:
        # The isolation that needs no container runtime works wherever buildah does.
        isolation = self._host.environment.get("BUILDAH_ISOLATION", "chroot")
        return [f"--isolation={isolation}", *super()._arguments(job, written)]

    def _configuration(self, found: dict[str, Any]) -> Configuration:
        image = found["OCIv1"]
        return configured(found["FromImageID"], image.get("config", {}), image.get("architecture", ""))

    def _digest(self, found: dict[str, Any]) -> str:
        return str(found["FromImageDigest"])

    def _names(self, container: dict[str, Any]) -> list[str]:
        return [container["containername"]]


class Podman(_Storage):
    name = "podman"
    build_command = ("build", "--network=none")
    list_command = ("ps", "--all", "--external", "--format=json")
    inspect_command = ("image", "inspect")
    never_pull = "--pull=never"

    def read(self, image: str, path: str) -> str:
        container = self._do("create", image)
        try:
            with tempfile.TemporaryDirectory(prefix="vimectl-image-") as work:
                self._do("cp", f"{container}:{path}", f"{work}/file")
                return Path(work, "file").read_text(encoding="utf-8")
        finally:
            quietly([self.name, "rm", "--force", container])

    @contextmanager
    def mounted(self, image: str, work: Path) -> Iterator[Path]:
        self._as_root()
        try:
            yield Path(self._do("image", "mount", image))
        finally:
            quietly([self.name, "image", "umount", image])

    def _configuration(self, found: dict[str, Any]) -> Configuration:
        return configured(found["Id"], found.get("Config", {}), found.get("Architecture", ""))

    def _digest(self, found: dict[str, Any]) -> str:
        return str(found["Digest"])

    def _names(self, container: dict[str, Any]) -> list[str]:
        return list(container.get("Names") or [])


def configured(digest: str, config: dict[str, Any], machine: str) -> Configuration:
    pairs = [entry.partition("=") for entry in config.get("Env") or []]
    return Configuration(
        digest=digest.removeprefix("sha256:"),
        labels=config.get("Labels") or {},
        environment={name: value for name, _, value in pairs},
        user=config.get("User") or "",
        entrypoint=tuple(config.get("Entrypoint") or ()),
        command=tuple(config.get("Cmd") or ()),
        machine=machine,
    )


@contextmanager
def _alone(on_line: OnLine) -> Iterator[None]:
    """Let one build of this user go on at a time, so that what it leaves can be told from another's."""
    folder = Path(platformdirs.user_cache_dir("vimectl"))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "image-build.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_line("waiting for another image to be built")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
