"""Run pip, read its progress from its output, and explain its failures."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name
from vime_runtime.spec.errors import CheckFailed, MissingRequirement, VimeError

from vimectl.stacks.lock import Pin
from vimectl.stacks.schema import Origin
from vimectl.util.subprocess import OnLine, run_logged

# Install exactly the pinned files and nothing else.
EXACT = ("--no-deps", "--require-hashes", "--only-binary=:all:")

_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
_STARTED = re.compile(r"(?:Collecting|Processing) (\S+)")
_FILE = re.compile(r"(?:Processing|Downloading|Using cached) (\S+)")
_GOT = re.compile(r"Got\s+([0-9a-f]{64})")
_NOT_FOUND = re.compile(r"(?:No matching distribution found for|satisfies the requirement) ([\w.-]+)")
_NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded")
# Printed for each attempt to reach an index. An index that does not answer has no versions either.
_BROKEN = re.compile(r"after connection broken by '(.*)': ")
_VERSIONS = re.compile(r"\(from versions: (.*?)\)")
_FIND_LINKS = "`pip config set global.find-links DIR` with the file in DIR"


@dataclass(frozen=True)
class Pip:
    """The pip of one environment.

    ``lock_fd`` is the descriptor that keeps the environment's directory locked; ``work`` is the directory for
    requirements, temporary files and the log.
    """

    python: Path
    lock_fd: int
    work: Path

    @property
    def log(self) -> Path:
        return self.work / "pip.log"

    @property
    def temporary(self) -> Path:
        return self.work / "tmp"

    def run(self, arguments: Sequence[str], on_line: OnLine) -> tuple[int, str]:
        """Run pip and return its exit status and its output.

        The user's pip configuration applies (mirrors, find-links, certificates).
        """
        shutil.rmtree(self.temporary, ignore_errors=True)  # left by a pip that was killed
        self.temporary.mkdir(parents=True)
        options = ["--disable-pip-version-check", "--no-input"]
        command: list[str | Path] = [self.python, "-m", "pip", *options, *arguments]
        return run_logged(command, self.log, on_line, {"TMPDIR": str(self.temporary)}, self.lock_fd)

    def requirements(self, pins: Iterable[Pin]) -> str:
        """Write pins as a requirements file in the work directory and return its path."""
        self.work.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile("w", suffix=".txt", dir=self.work, delete=False) as file:
            file.writelines(pin.text + "\n" for pin in pins)
        return file.name


@dataclass
class DownloadCount:
    """Packages and bytes counted from the output of ``pip download --progress-bar raw``."""

    packages: int = 0
    finished_bytes: int = 0
    current_bytes: int = 0
    current_total: int = 0
    name: str = ""

    @property
    def bytes(self) -> int:
        return self.finished_bytes + self.current_bytes

    def update(self, line: str) -> bool:
        """Count one line of output. Return True when the count changed."""
        if match := _PROGRESS.match(line):
            done, total = map(int, match.groups())
            self.current_bytes, self.current_total = done, total
            if done == total:
                self.finished_bytes += done
                self.current_bytes = 0
            return True
        if match := _STARTED.match(line):
            self.packages += 1
            self.name = Path(match[1]).name
            return True
        return False


def download_error(pins: Sequence[Pin], folder: Path, output: str, origin: Origin | None = None) -> VimeError:
    """Return the error that explains why pip did not download ``pins`` into ``folder``.

    With an ``origin`` there is one pin, and ``output`` is that of pip for all sources that were tried.
    """
    what = f"{pins[0].name} {pins[0].version}" if len(pins) == 1 else f"{len(pins)} packages"
    network = f"access to {origin.index}" if origin else "network access"
    hint = f"give pip a source that has it: {network}, or {_FIND_LINKS}"
    # Not checked beforehand: setuptools changes the process that looks for pip.
    if "No module named pip" in output:
        names = pins[0].name if len(pins) == 1 else what
        return MissingRequirement(f"{sys.executable} has no pip to download {names}", "install pip there")
    if wrong := _wrong_file(output):
        file, digest = wrong
        pin = _pin_called(pins, file.rpartition("/")[2].partition("-")[0])
        found = f"found {file or f'a file of {what}'} sha256 {digest}"
        return CheckFailed(f"{found}, expected {_accepted_files(pin, origin)}", hint)
    if _NO_SPACE.search(output):
        return MissingRequirement(
            f"downloading {what}: no space left in {folder}",
            "free some space, or use a directory on another disk (for the cache: set XDG_CACHE_HOME=DIR)",
        )
    absent, broken = _NOT_FOUND.search(output), _BROKEN.findall(output)
    if origin:
        versions = _VERSIONS.search(output)
        newest = versions[1].split(", ")[-1] if versions else "none"
        found = f"the newest of {pins[0].name} that pip's sources offer is {newest}"
        if newest == "none":
            found = f"pip's sources offer no {pins[0].name}"
        return MissingRequirement(f"{what}: {found}; expected {_accepted_files(pins[0], origin)}", hint)
    if broken and (absent is None or "(from versions: none)" in output):
        return MissingRequirement(
            f"downloading {what}: pip's index cannot be reached: {broken[-1]}",
            "fix the connection, then run the same command again: it resumes where it stopped",
        )
    if absent:
        pin = _pin_called(pins, absent[1])
        found = f"pip's sources offer no wheel of {pin.name} {pin.version}"
        return MissingRequirement(f"{found} (sha256 {_accepted_files(pin, None)})", hint)
    last = next((line for line in reversed(output.splitlines()) if line.strip()), "no output")
    return CheckFailed(f"downloading {what} failed: {last.strip()}", hint)


def _wrong_file(output: str) -> tuple[str, str] | None:
    """Return path ("" when unknown) and digest of the file whose digest pip refused, or None."""
    got = _GOT.search(output)
    if not got:
        return None
    files = [m[1] for line in output[: got.start()].splitlines() if (m := _FILE.match(line.strip()))]
    return files[-1] if files else "", got[1]


def _pin_called(pins: Sequence[Pin], name: str) -> Pin:
    return next((pin for pin in pins if pin.name == canonicalize_name(name)), pins[0])


def _accepted_files(pin: Pin, origin: Origin | None) -> str:
    if origin:
        return "; ".join(f"{file.name} sha256 {file.sha256}" for file in origin.files)
    return " or ".join(sorted(pin.hashes))
