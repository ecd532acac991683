"""Fetch the wheels of many pins into a folder: what is there stays, what was cut off goes on."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vimectl.env import origin, wheels
from vimectl.env.pip import DownloadCount, Pip
from vimectl.env.refusal import refusal
from vimectl.stacks.lock import Pin
from vimectl.stacks.schema import Origin
from vimectl.util.hashing import sha256

EXACT = ("--no-deps", "--require-hashes", "--only-binary=:all:")
# The oldest C library for which wheels are named by it, PEP 600.
_OLDEST_GLIBC = 5


@dataclass(frozen=True)
class Progress:
    """How far a phase is: ``done`` of ``total`` packages or modules, bytes fetched so far."""

    phase: str
    done: int = 0
    total: int = 0
    unit: str = "packages"
    bytes: int = 0
    detail: str = ""


Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Target:
    """The interpreter that wheels are for when it is another than this one: CPython on Linux.

    ``python`` is its minor version (``3.12``), ``machine`` as uname says it, ``glibc`` as in ``2.35``.
    """

    python: str
    machine: str
    glibc: str

    @property
    def arguments(self) -> list[str]:
        """What pip is told, which knows only the older names as including those before them."""
        newest = int(self.glibc.partition(".")[2])
        names = [f"manylinux_2_{minor}_{self.machine}" for minor in range(newest, _OLDEST_GLIBC - 1, -1)]
        names += [f"manylinux2014_{self.machine}", f"linux_{self.machine}"]
        return ["--implementation=cp", f"--python-version={self.python}", *(f"--platform={n}" for n in names)]


def fetch_wheels(
    pins: Sequence[Pin], folder: Path, target: Target, origins: Mapping[str, Origin], report: Report
) -> None:
    """Have the wheels of ``pins`` in ``folder``; the pip of this interpreter fetches those that it lacks.

    The user's own configuration of pip holds (indexes, find-links, certificates, proxies). A second caller
    waits for the first. Interrupted, the same call goes on.

    Raises:
        CheckFailed: what was found has another digest, or pip failed.
        MissingRequirement: no source has a package or none can be reached, pip is not there, or the disk is
            full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    work = folder.with_name(f".{folder.name}")
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        fetch(Pip(Path(sys.executable), held, work), pins, folder, origins, report, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        os.close(held)


def fetch(
    pip: Pip,
    pins: Sequence[Pin],
    folder: Path,
    origins: Mapping[str, Origin],
    report: Report,
    target: Target | None = None,
) -> None:
    """Let ``pip`` fetch the wheels of ``pins`` that ``folder`` lacks, as ``fetch_wheels`` does."""
    folder.mkdir(parents=True, exist_ok=True)
    absent = wheels.missing(pins, folder)
    count = DownloadCount()
    begun = len(pins) - len(absent)

    def on_line(line: str) -> None:
        if count.feed(line):
            wheels.keep(pip.temporary, folder)
            done = min(begun + count.packages, len(pins))
            report(Progress("fetching", done, len(pins), bytes=count.bytes, detail=count.name))

    extra = target.arguments if target else []
    for pin in absent:
        if pin.name in origins:
            origin.download(pip, pin, origins[pin.name], folder, on_line, extra)
    ordinary = [pin for pin in absent if pin.name not in origins]
    if ordinary:
        arguments = ["download", *EXACT, "--progress-bar=raw", "--dest", str(folder), *extra]
        status, output = pip.run([*arguments, "-r", pip.requirements(ordinary)], on_line)
        if status != 0:
            raise refusal(ordinary, folder, output)


def discard_others(pins: Iterable[Pin], folder: Path) -> None:
    """Remove from a folder of wheels what is of none of ``pins``: other versions, and what was cut off."""
    hashes = frozenset[str]().union(*(pin.hashes for pin in pins))
    for path in folder.glob("*.whl"):
        if sha256(path) not in hashes:
            path.unlink()
