"""Docker with BuildKit: its daemon builds, and cleans up what it was told to stop."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import CheckFailed, UsageError

from vimectl.images.builder import SECONDS_TO_CLEAN, Configuration, Job, OnLine
from vimectl.images.builder.failure import explain
from vimectl.images.builder.storage import configured
from vimectl.util.host import Host
from vimectl.util.subprocess import follow, quietly

_SECONDS = 20


class Docker:
    name = "docker"

    def __init__(self, host: Host) -> None:
        self._host = host

    def trouble(self) -> str | None:
        # The client answers without its daemon, which is what builds; the old builder knows no RUN --mount.
        for command in (["version", "--format", "{{.Server.Version}}"], ["buildx", "version"]):
            answer = self._host.run([self.name, *command], _SECONDS)
            if answer.code != 0:
                said = [line for line in answer.stderr.splitlines() if line.strip()]
                return said[0].strip() if said else f"exit status {answer.code}"
        return None

    def base_digest(self, job: Job, on_line: OnLine) -> str:
        if self._inspected(job.base) is None:
            on_line(f"pulling {job.base}")
            status, output = follow(
                [self.name, "pull", job.base], {}, None, job.log, on_line, SECONDS_TO_CLEAN
            )
            if status != 0:
                raise explain(status, output, job.log)
        found = self._inspected(job.base)
        if found is None:
            raise CheckFailed(f"{job.base} was pulled and is not there", f"see {job.log}")
        digests = found.get("RepoDigests") or []
        return str(digests[0].rpartition("@")[2] if digests else found["Id"])

    def build(self, job: Job, on_line: OnLine) -> str:
        written = job.work / "image-id"
        given = dict(job.arguments) | {"BASE_IMAGE": job.base}
        if job.epoch is not None:
            given["SOURCE_DATE_EPOCH"] = str(job.epoch)
        argv = [
            *(self.name, "buildx", "build", "--progress=plain", "--load", "--network=none"),
            *(f"--build-arg={name}={value}" for name, value in given.items()),
            *(f"--iidfile={written}", f"--file={job.dockerfile}", str(job.context)),
        ]
        status, output = follow(argv, {}, None, job.log, on_line, SECONDS_TO_CLEAN)
        if status != 0:
            raise explain(status, output, job.log)
        return written.read_text(encoding="ascii").strip()

    def tag(self, image: str, name: str) -> None:
        self._do("tag", image, name)

    def remove(self, image: str) -> None:
        quietly([self.name, "rmi", "--force", image])

    def configuration(self, image: str) -> Configuration:
        found = self._inspected(image)
        if found is None:
            raise UsageError(f"no image {image} among those of docker", "docker images lists them")
        return configured(found["Id"], found.get("Config") or {}, found.get("Architecture", ""))

    def version(self) -> str:
        return self._do("version", "--format", "{{.Server.Version}}")

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
        # Its daemon mounts nothing for others: the tree is copied out.
        container = self._do("create", image)
        try:
            tree, archive = work / "tree", work / "tree.tar"
            tree.mkdir()
            self._do("export", f"--output={archive}", container)
            unpacked = quietly(["tar", "--extract", "--file", str(archive), "--directory", str(tree)])
            archive.unlink()
            if unpacked.code != 0:
                raise CheckFailed(f"unpacking {image}: {unpacked.stderr.strip()}", f"look at {work}")
            yield tree
        finally:
            quietly([self.name, "rm", "--force", container])

    def _inspected(self, image: str) -> dict[str, Any] | None:
        answer = quietly([self.name, "image", "inspect", image])
        if answer.code != 0:
            return None
        found: dict[str, Any] = json.loads(answer.stdout)[0]
        return found

    def _do(self, *arguments: str) -> str:
        answer = quietly([self.name, *arguments])
        if answer.code != 0:
            raise CheckFailed(
                f"docker {' '.join(arguments)}: {answer.stderr.strip()}",
                "`docker info` says whether it works",
            )
        return answer.stdout.strip()
