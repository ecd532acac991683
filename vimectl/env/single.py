"""Fetch one wheel, known by its digest, into a folder of its own; nothing is installed."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from packaging.utils import canonicalize_name
from vime_runtime.spec.errors import MissingRequirement

from vimectl.env.pip import DownloadCount, Pip
from vimectl.env.refusal import refusal
from vimectl.env.several import EXACT
from vimectl.env.wheels import missing
from vimectl.stacks.lock import Pin

# Bytes that have come, bytes in all.
Report = Callable[[int, int], None]


def fetch_wheel(name: str, version: str, sha256: str, folder: Path, report: Report) -> Path:
    """Return a wheel in ``folder``, which holds no other: fetched unless it is there and whole.

    The pip of this interpreter fetches it, so that the user's own configuration of pip holds (indexes,
    find-links, certificates, proxies). A second caller waits for the first.

    Raises:
        CheckFailed: what was found has another digest, or pip failed.
        MissingRequirement: no source has it, pip is not there, or the disk is full.
        KeyboardInterrupt: interrupted; what had come of the file is gone.
    """
    text = f"{name}=={version} --hash=sha256:{sha256}"
    pin = Pin(canonicalize_name(name), version, frozenset({sha256}), text)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise MissingRequirement(f"{folder} cannot be made: {e.strerror}", "set XDG_CACHE_HOME=DIR") from e
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        if missing([pin], folder):
            _fetch(pin, folder, held, report)
        return next(iter(folder.glob("*.whl")))
    finally:
        os.close(held)


def _fetch(pin: Pin, folder: Path, held: int, report: Report) -> None:
    for damaged in folder.glob("*.whl"):
        damaged.unlink()
    work = folder / ".work"
    shutil.rmtree(work, ignore_errors=True)  # of a process that was killed
    count = DownloadCount()

    def on_line(line: str) -> None:
        if count.feed(line) and count.current_total:
            report(count.bytes, count.current_total)

    try:
        pip = Pip(Path(sys.executable), held, work)
        arguments = ["download", *EXACT, "--progress-bar=raw"]
        wanted = ["--dest", str(work), "-r", pip.requirements([pin])]
        status, output = pip.run([*arguments, *wanted], on_line)
        if status != 0:
            raise refusal([pin], folder, output)
        for wheel in work.glob("*.whl"):
            wheel.replace(folder / wheel.name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
