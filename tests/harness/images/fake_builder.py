"""A script in place of a builder, because not every machine has it. It records its calls."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path

import pytest

from vimectl.images.builders import BuildJob

_PROGRAM = """\
#!{python}
import io, json, sys, tarfile
from pathlib import Path
here, arguments = Path({here!r}), sys.argv[1:]
with (here / "called").open("a") as file:
    file.write(json.dumps(arguments) + "\\n")
{behavior}"""


class FakeBuilder:
    """The script and its directory ``here``, where files change its behavior."""

    def __init__(self, here: Path, name: str, behavior: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put the script on the PATH. ``behavior`` continues it: ``arguments`` are those of a call."""
        self.here = here
        program = here / "bin" / name
        program.parent.mkdir()
        program.write_text(_PROGRAM.format(python=sys.executable, here=str(here), behavior=behavior))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
        monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))

    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.here / "called").read_text().splitlines()]

    def job(self, lock_fd: int, epoch: int | None = 1, machine: str = platform.machine()) -> BuildJob:
        (self.here / "work").mkdir()
        return BuildJob(
            dockerfile=self.here / "Dockerfile",
            context=self.here / "context",
            base="quay.io/x",
            machine=machine,
            arguments={"STACK": "own"},
            epoch=epoch,
            work=self.here / "work",
            log=self.here / "log",
            lock_fd=lock_fd,
        )
