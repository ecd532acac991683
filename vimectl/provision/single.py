"""Fetch one wheel, known by its digest, into a folder of its own; nothing is installed."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from packaging.utils import canonicalize_name

from vimectl.errors import CheckFailed, MachineLacks, VimectlError
from vimectl.provision.pip import DownloadCount, Pip, files_taken
from vimectl.provision.wheels import missing
from vimectl.stack.lock import Pin

_GOT = re.compile(r"Got\s+([0-9a-f]{64})")
_NOT_FOUND = re.compile(r"from versions: |No matching distribution|Could not find a version")
_NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded")

# Bytes that have come, bytes in all.
Report = Callable[[int, int], None]


def fetch_wheel(name: str, version: str, sha256: str, folder: Path, report: Report) -> Path:
    """Return a wheel in ``folder``, which holds no other: fetched unless it is there and whole.

    The pip of this interpreter fetches it, so that the user's own configuration of pip holds (indexes,
    find-links, certificates, proxies). A second caller waits for the first.

    Raises:
        CheckFailed: what was found has another digest, or pip failed.
        MachineLacks: no source has it, pip is not there, or the disk is full.
        KeyboardInterrupt: interrupted; what had come of the file is gone.
    """
    text = f"{name}=={version} --hash=sha256:{sha256}"
    pin = Pin(canonicalize_name(name), version, frozenset({sha256}), text)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise MachineLacks(f"{folder} cannot be made: {e.strerror}", "set XDG_CACHE_HOME=DIR") from e
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
        arguments = ["download", "--no-deps", "--require-hashes", "--only-binary=:all:", "--progress-bar=raw"]
        wanted = ["--dest", str(work), "-r", pip.requirements([pin])]
        status, output = pip.run([*arguments, *wanted], on_line)
        if status != 0:
            raise _refusal(pin, folder, output)
        for wheel in work.glob("*.whl"):
            wheel.replace(folder / wheel.name)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _refusal(pin: Pin, folder: Path, output: str) -> VimectlError:
    what, expected = f"{pin.name} {pin.version}", ", ".join(sorted(pin.hashes))
    hint = (
        "give pip a source that has it: network access, or `pip config set global.find-links DIR` with the "
        "file in DIR"
    )
    # Not looked for beforehand: setuptools changes the process that looks for pip.
    if "No module named pip" in output:
        return MachineLacks(f"{sys.executable} has no pip to fetch {pin.name} with", "install pip there")
    if got := _GOT.search(output):
        name = next(iter(files_taken(output[: got.start()])[-1:]), f"a file of {what}")
        return CheckFailed(f"found {name} sha256 {got[1]}, expected {expected}", hint)
    if _NO_SPACE.search(output):
        mend = "free some space, or set XDG_CACHE_HOME=DIR to have the cache on another disk"
        return MachineLacks(f"fetching {what}: no space left in {folder}", mend)
    if _NOT_FOUND.search(output):
        return MachineLacks(f"pip's sources offer no wheel of {what} (sha256 {expected})", hint)
    last = next((line for line in reversed(output.splitlines()) if line.strip()), "no output")
    return CheckFailed(f"fetching {what} failed: {last.strip()}", hint)
