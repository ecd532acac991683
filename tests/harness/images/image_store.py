"""A temporary store of container images, in which tests call vimectl as a user does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.images import fake_base

# 2026-01-01: what the tests set as SOURCE_DATE_EPOCH.
EPOCH = "1767225600"


@dataclass(frozen=True)
class ImageStore:
    """A store in ``folder`` that also sees the fake bases, and a folder for temporary files."""

    folder: Path
    variables: dict[str, str]

    @classmethod
    def make(cls, folder: Path, graph_root: Path | None = None) -> ImageStore:
        """Make a store in ``folder``, or with its images at ``graph_root``."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tmp").mkdir()
        graph, run = graph_root or folder / "graph", folder / "run"
        others = [fake_base.storage() / "graph"]
        variables = fake_base.configure(graph, run, folder / "storage.conf", others)
        return cls(folder, variables | {"TMPDIR": str(folder / "tmp"), "SOURCE_DATE_EPOCH": EPOCH})

    def vimectl(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run vimectl in this store."""
        process = self.start(*arguments)
        out, err = process.communicate()
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start vimectl in this store."""
        return subprocess.Popen(
            [sys.executable, "-m", "vimectl", *map(str, arguments)],
            cwd=self.folder,
            env=os.environ | self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def build(self, stack: Path, offline: Path, tag: str, *more: str) -> subprocess.CompletedProcess[str]:
        return self.vimectl(*self.building(stack, offline, tag), *more)

    def building(self, stack: Path, offline: Path, tag: str, base: str = fake_base.IMAGE) -> list[str]:
        """Return the command line that builds on the fake base."""
        given = {"stack": stack, "offline": offline, "tag": tag, "base": base, "builder": "buildah"}
        given["records"] = self.folder / f"records-{tag}"
        return [
            *("image", "build", "--stand-in"),
            *(text for name, value in given.items() for text in (f"--{name}", str(value))),
        ]

    def verify(self, image: str, *more: str) -> dict[str, Any]:
        """Return the JSON of `image verify`."""
        done = self.vimectl("image", "verify", image, "--builder", "buildah", "--json", *more)
        assert done.stdout, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        assert (done.returncode == 0) == found["ok"]
        return found

    def buildah(self, *arguments: str) -> str:
        return self._do("buildah", *arguments)

    def run(self, image: str, *command: str) -> str:
        """Run a command in a container of an image, as the user that the image names; return what it said.

        It sees its own processes alone, as in a container of an engine.
        """
        apart = ("unshare", "--pid", "--fork", "--mount-proc", "--")
        container = self.buildah("from", "--pull-never", image)
        try:
            return self._do(*apart, "buildah", "run", "--isolation=chroot", container, "--", *command)
        finally:
            self.buildah("rm", container)

    def _do(self, *command: str) -> str:
        done = subprocess.run(command, env=os.environ | self.variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def leftovers(self) -> list[str]:
        """Return containers, mounts, temporary files, processes and nameless images of this store."""
        found = [f"container {line}" for line in self.buildah("containers", "--all", "--quiet").split()]
        found += [
            f"image {line}" for line in self.buildah("images", "--quiet", "--filter=dangling=true").split()
        ]
        found += [
            f"alias {line}"
            for line in self.buildah("images", "--noheading").splitlines()
            if "vimectl-build" in line
        ]
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        found += [
            f"mount {line}" for line in mounts if f"{self.folder}/" in line and "vimectl-disk" not in line
        ]
        found += [f"file {path}" for path in (self.folder / "tmp").iterdir()]
        return found + [f"process {pid} {command!r}" for pid, command in self.processes().items()]

    def processes(self) -> dict[int, bytes]:
        """Return the processes that have this store in their environment, with their command lines."""
        found = {}
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if str(self.folder).encode() in path.read_bytes():
                    found[int(path.parent.name)] = (path.parent / "cmdline").read_bytes()
            except OSError:
                continue  # it has exited
        return found


def interrupted(
    process: subprocess.Popen[str], log: Path, sign: str, how: int = signal.SIGINT, seconds: float = 120
) -> str:
    """Wait until a log has a line, send a signal, and return the output of the process."""
    deadline = time.monotonic() + seconds
    while not (log.exists() and sign in log.read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, log.read_text() if log.exists() else "no log"
        time.sleep(0.05)
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    return out + err
