"""Run an environment's pip and read from its output how far it is."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vimectl.stacks.lock import Pin
from vimectl.util.subprocess import follow

_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
_TAKEN = re.compile(r"(?:Collecting|Processing) (\S+)")
_FILE = re.compile(r"(?:Processing|Downloading|Using cached) (\S+)")


@dataclass(frozen=True)
class Pip:
    """The pip of one environment.

    ``lock`` is the descriptor that keeps the environment's directory locked; ``work`` is the folder for
    requirements, temporary files and the log.
    """

    python: Path
    lock: int
    work: Path

    @property
    def log(self) -> Path:
        return self.work / "pip.log"

    @property
    def temporary(self) -> Path:
        return self.work / "tmp"

    def run(self, arguments: Sequence[str], on_line: Callable[[str], None]) -> tuple[int, str]:
        """Run pip and return its exit status and its whole output.

        pip honours the user's own configuration (mirrors, find-links, certificates).
        """
        shutil.rmtree(self.temporary, ignore_errors=True)  # of a pip that was killed
        self.temporary.mkdir(parents=True)
        return follow(
            [self.python, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments],
            {"TMPDIR": str(self.temporary)},
            self.lock,
            self.log,
            on_line,
        )

    def requirements(self, pins: Iterable[Pin]) -> str:
        """Write pins as a requirements file in the work folder and return its path."""
        self.work.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile("w", suffix=".txt", dir=self.work, delete=False) as file:
            file.writelines(pin.text + "\n" for pin in pins)
        return file.name


@dataclass
class DownloadCount:
    """Counts packages and bytes from the lines of ``pip download --progress-bar raw``."""

    packages: int = 0
    finished_bytes: int = 0
    current_bytes: int = 0
    current_total: int = 0
    name: str = ""

    @property
    def bytes(self) -> int:
        return self.finished_bytes + self.current_bytes

    def feed(self, line: str) -> bool:
        """Take one line of output; True when the count changed."""
        if match := _PROGRESS.match(line):
            done, total = map(int, match.groups())
            self.current_bytes, self.current_total = done, total
            if done == total:
                self.finished_bytes += done
                self.current_bytes = 0
            return True
        if match := _TAKEN.match(line):
            self.packages += 1
            self.name = Path(match[1]).name
            return True
        return False


def files_taken(output: str) -> list[str]:
    """Return the files that pip took up, in order, from its output."""
    return [match[1] for line in output.splitlines() if (match := _FILE.match(line.strip()))]
