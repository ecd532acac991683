"""Make a virtual environment with uv, install pinned packages into it, and explain uv's failures."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from uv import find_uv_bin
from vime_runtime.spec.errors import CheckFailed, MissingRequirement, VimeError

from vimectl.env.uv import install_options, uv_environment
from vimectl.releases import pip_config
from vimectl.releases.locked_files import expected_file, source_hint
from vimectl.releases.pip_config import PipConfig
from vimectl.stacks.lock import Pin
from vimectl.stacks.schema import Origin
from vimectl.util.directory_lock import check_in_place
from vimectl.util.phase_progress import PhaseProgress, ReportPhase
from vimectl.util.secrets import redact
from vimectl.util.subprocess import OnLine, run_logged
from vimectl.util.transfer_limits import MAX_FILE_BYTES

# uv prints these for files of a megabyte and more.
_BEGUN = re.compile(r"Downloading (\S+) \(([\d.]+)([KMG])iB\)")
_FINISHED = re.compile(r"Downloaded (\S+)")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}

_NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded")
_NO_CACHE = "Failed to initialize cache"
_NO_ANSWER = re.compile(
    r"error sending request for url|error decoding response body"
    r"|HTTP status (?:server error|client error \(429)"
)
# The name of a package may have its marker in braces.
_ABSENT = re.compile(
    r"no version of ([\w.-]+)(?:{.*?})?=="
    r"|([\w.-]+)(?:{.*?})?(?:==\S+)? (?:was not found|has no usable wheels)"
)
_MISMATCH = re.compile(r"Hash mismatch for `([\w.-]+)==.*?Computed:\s+sha256:([0-9a-f]{64})", re.DOTALL)
# 512-byte blocks, as POSIX has it for ulimit -f. uv itself has no limit for the size of a file.
_LIMITED = ("/bin/sh", "-c", f'ulimit -f {MAX_FILE_BYTES // 512} && exec "$0" "$@"')


@dataclass
class UvInstaller:
    """uv for the environment in ``directory``, whose lock has the descriptor ``lock_fd``.

    ``work`` is the directory for requirements and the log.
    """

    directory: Path
    lock_fd: int
    work: Path
    report: ReportPhase

    @property
    def python(self) -> Path:
        return self.directory / "bin" / "python"

    @property
    def log(self) -> Path:
        return self.work / "uv.log"

    @cached_property
    def config(self) -> PipConfig:
        """pip's configuration, read when a package is first needed."""
        return pip_config.read()

    def make_environment(self, interpreter: Path) -> None:
        """Make the virtual environment. Raises CheckFailed."""
        self.report(PhaseProgress(f"creating a virtual environment with {interpreter}"))
        # The directory holds the state of the environment already.
        options = ["--no-config", "--allow-existing", "--python", str(interpreter)]
        status, output = self._run(["venv", *options, str(self.directory)], {})
        if status:
            raise self._failure(output)

    def install(
        self, pins: Sequence[Pin], origins: Mapping[str, Origin], options: Sequence[str] = ()
    ) -> None:
        """Download the wheels of pins that uv's cache lacks, check their digests, and install them.

        uv keeps each complete download, so an interrupted call does not download it again. A package with an
        origin comes from the user's own sources or else from its origin's index.

        Raises:
            CheckFailed: a file has another digest, or uv failed.
            MissingRequirement: no source has a package or can be reached, or the disk is full.
        """
        command = [*install_options(self.python, self.config), "--only-binary=:all:", *options]
        command += ["--requirements", self._requirements(pins)]
        pages = [f"{origins[pin.name].index}/{pin.name}/" for pin in pins if pin.name in origins]
        variables = uv_environment(self.config)
        progress = _DownloadProgress(self.report)
        status, output = self._run(command, variables, progress.read)
        if status and pages and _ABSENT.search(output):
            # As links, so that no other package comes from that index.
            links = (variables | os.environ).get("UV_FIND_LINKS", "").split(",")
            variables["UV_FIND_LINKS"] = ",".join(filter(None, [*links, *pages]))
            status, output = self._run(command, variables, progress.read)
        if status:
            raise self._install_error(pins, origins, output)

    def install_local(self, arguments: Sequence[str], variables: Mapping[str, str] | None = None) -> None:
        """Install from this machine alone, built in the environment itself. Raises as ``install``.

        Args:
            variables: environment variables of the build.
        """
        options = install_options(self.python, PipConfig(no_index=True))
        status, output = self._run([*options, "--no-build-isolation", *arguments], variables or {})
        if status:
            raise self._failure(output)

    def uninstall(self, names: Iterable[str]) -> None:
        """Uninstall packages. Raises CheckFailed."""
        command = ["pip", "uninstall", "--no-config", "--python", str(self.python), *names]
        status, output = self._run(command, {})
        if status:
            raise self._failure(output)

    def forget(self, names: Iterable[str]) -> None:
        """Remove packages from uv's cache. Other environments keep their files. Raises CheckFailed."""
        status, output = self._run(["cache", "clean", "--no-config", *names], {})
        if status:
            raise self._failure(output)

    def _run(
        self, arguments: Sequence[str], variables: Mapping[str, str], on_line: OnLine = lambda line: None
    ) -> tuple[int, str]:
        """Run uv and return its exit status and its output."""
        check_in_place(self.directory, self.lock_fd)
        self.work.mkdir(exist_ok=True)
        command = [*_LIMITED, find_uv_bin(), *arguments]
        return run_logged(command, self.log, on_line, variables, self.lock_fd)

    def _requirements(self, pins: Iterable[Pin]) -> str:
        """Write pins as a requirements file in the work directory and return its path."""
        self.work.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile("w", suffix=".txt", dir=self.work, delete=False) as file:
            file.writelines(pin.text + "\n" for pin in pins)
        return file.name

    def _install_error(self, pins: Sequence[Pin], origins: Mapping[str, Origin], output: str) -> VimeError:
        if found := _MISMATCH.search(output):
            pin = next(pin for pin in pins if pin.name == found[1])
            origin = origins.get(pin.name)
            return CheckFailed(
                f"a source of pip has another {pin.name} {pin.version}: sha256 {found[2]}, "
                f"expected {expected_file(pin, origin)}",
                source_hint(origin),
            )
        for pin in pins:
            origin = origins.get(pin.name)
            if origin and origin.index in output and _NO_ANSWER.search(output):
                return MissingRequirement(
                    f"pip's sources have no {pin.name} {pin.version}, and {origin.index} cannot be reached: "
                    f"{_causes(output)[-1]}",
                    source_hint(origin),
                )
        if _NO_ANSWER.search(output):
            return MissingRequirement(
                f"downloading failed: {': '.join(_causes(output))}",
                "fix the connection, then run the same command again: it resumes where it stopped",
            )
        if found := _ABSENT.search(output):
            pin = next(pin for pin in pins if pin.name in found.groups())
            return MissingRequirement(
                f"pip's sources offer no wheel of {pin.name} {pin.version}, {expected_file(pin, None)}",
                source_hint(origins.get(pin.name)),
            )
        return self._failure(output)

    def _failure(self, output: str) -> VimeError:
        if _NO_SPACE.search(output):
            return MissingRequirement(
                f"no space left for {self.directory} or uv's cache",
                "free some space, or use another disk (for the cache: set UV_CACHE_DIR=DIR)",
            )
        if _NO_CACHE in output:
            return MissingRequirement(": ".join(_causes(output)), "name a folder of yours: UV_CACHE_DIR=DIR")
        return CheckFailed(
            f"uv failed: {': '.join(_causes(output))}", f"see {self.log}; the same command resumes"
        )


@dataclass
class _DownloadProgress:
    """Counts the bytes of the files that uv says it downloads, those of a megabyte and more."""

    report: ReportPhase
    sizes: dict[str, float] = field(default_factory=dict)
    finished: float = 0.0
    total: float = 0.0

    def read(self, line: str) -> None:
        """Read one line of uv's output."""
        if found := _BEGUN.match(line):
            self.sizes[found[1]] = float(found[2]) * _UNITS[found[3]]
            self.total += self.sizes[found[1]]
        elif found := _FINISHED.match(line):
            self.finished += self.sizes.pop(found[1], 0.0)
        elif not line.startswith("Prepared "):
            return
        largest = sorted(self.sizes, key=self.sizes.__getitem__, reverse=True)
        now = PhaseProgress("downloading", round(self.finished / 1e6), round(self.total / 1e6), "MB")
        self.report(now._replace(detail=" ".join(largest[:3])) if self.sizes else PhaseProgress("installing"))


def _causes(output: str) -> list[str]:
    """Return the error of uv's output and its causes, the innermost last."""
    lines = [line.strip() for line in output.splitlines()]
    found = [line.partition(": ")[2] for line in lines if line.startswith(("error: ", "cause: "))]
    return [redact(line) for line in found] or [lines[-1] if lines else "no output"]
