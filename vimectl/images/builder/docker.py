"""Docker with BuildKit: its daemon builds, and cleans up after an interrupted build."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vime_runtime.spec.errors import CheckFailed

from vimectl.images.builder.base import Builder, BuildJob, ImageConfiguration
from vimectl.util.subprocess import OnLine, run_shielded


class Docker(Builder):
    name = "docker"

    def unusable(self) -> str | None:
        # The client also answers without the daemon, which builds; the old builder has no RUN --mount.
        for command in (["version", "--format", "{{.Server.Version}}"], ["buildx", "version"]):
            answer = self._probe(self.name, *command)
            if answer.code != 0:
                lines = [line for line in answer.stderr.splitlines() if line.strip()]
                return lines[0].strip() if lines else f"exit status {answer.code}"
        return None

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

    def _configuration(self, inspected: dict[str, Any]) -> ImageConfiguration:
        return ImageConfiguration.of(
            inspected["Id"], inspected.get("Config") or {}, inspected.get("Architecture", "")
        )

    def _manifest_digest(self, inspected: dict[str, Any]) -> str:
        digests = inspected.get("RepoDigests") or []
        return str(digests[0].rpartition("@")[2] if digests else inspected["Id"])
