"""Download the wheels of a lock into a directory, or one wheel into a cache, if missing."""

from __future__ import annotations

import glob
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name
from vime_runtime.spec.atomic_io import sha256_file

from vimectl.env.installer import EXACT, DownloadCount, Pip, download_error
from vimectl.stacks.lock import Pin
from vimectl.stacks.schema import Origin
from vimectl.util.directory_lock import lock_directory
from vimectl.util.phase_progress import PhaseProgress, ReportPhase
from vimectl.util.subprocess import OnLine

# The oldest glibc that has platform tags of its version, PEP 600.
_OLDEST_GLIBC = 5


@dataclass(frozen=True)
class WheelTarget:
    """The interpreter that wheels are for when it is not the running one: CPython on Linux.

    ``python`` is its minor version (``3.12``), ``machine`` as in uname, ``glibc`` as in ``2.35``.
    """

    python: str
    machine: str
    glibc: str

    @property
    def arguments(self) -> list[str]:
        """The arguments for pip. Only the legacy tags include the older ones, so every glibc is listed."""
        newest = int(self.glibc.partition(".")[2])
        names = [f"manylinux_2_{minor}_{self.machine}" for minor in range(newest, _OLDEST_GLIBC - 1, -1)]
        names += [f"manylinux2014_{self.machine}", f"linux_{self.machine}"]
        return ["--implementation=cp", f"--python-version={self.python}", *(f"--platform={n}" for n in names)]


def download_wheels(
    pip: Pip,
    pins: Sequence[Pin],
    folder: Path,
    origins: Mapping[str, Origin],
    report: ReportPhase,
    target: WheelTarget | None = None,
) -> None:
    """Download the wheels of ``pins`` that ``folder`` lacks. After an interruption the same call resumes.

    The user's pip configuration applies (indexes, find-links, certificates, proxies). The caller holds the
    lock of ``pip``.

    Raises:
        CheckFailed: a file has another digest, or pip failed.
        MissingRequirement: no source has a package or can be reached, there is no pip, or the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    present = {sha256_file(path) for path in folder.glob("*.whl")}
    missing = [pin for pin in pins if not pin.hashes & present]
    count = DownloadCount()

    def on_line(line: str) -> None:
        if count.update(line):
            link_downloads(pip.temporary, folder)
            done = min(len(pins) - len(missing) + count.packages, len(pins))
            now = PhaseProgress("downloading", done, len(pins), detail=count.name)
            report(now._replace(bytes=count.bytes, file_bytes=count.current_total))

    arguments = ["download", *EXACT, "--progress-bar=raw", "--dest", str(folder)]
    arguments += target.arguments if target else []
    for pin in missing:
        if pin.name in origins:
            _download(pip, [pin], origins[pin.name], folder, arguments, on_line)
    if ordinary := [pin for pin in missing if pin.name not in origins]:
        _download(pip, ordinary, None, folder, arguments, on_line)


def download_wheel(
    name: str, version: str, digest: str, folder: Path, report: Callable[[int, int], None]
) -> Path:
    """Return the wheel with this SHA-256 in ``folder``, which holds no other; download it when it is missing.

    ``report`` gets the bytes downloaded and the bytes in total.

    Raises:
        CheckFailed: the file has another digest, or pip failed.
        MissingRequirement: no source has it, there is no pip, or the disk is full.
        KeyboardInterrupt: interrupted; the partial file is removed.
    """
    text = f"{name}=={version} --hash=sha256:{digest}"
    pin = Pin(canonicalize_name(name), version, frozenset({digest}), text)

    def on_progress(now: PhaseProgress) -> None:
        if now.file_bytes:
            report(now.bytes, now.file_bytes)

    work = folder.with_name(f".{folder.name}")
    with lock_directory(folder, lambda: None) as lock_fd:
        try:
            download_wheels(Pip(Path(sys.executable), lock_fd, work), [pin], folder, {}, on_progress)
        finally:
            remove_other_wheels([pin], folder)
            shutil.rmtree(work, ignore_errors=True)
        return next(iter(folder.glob("*.whl")))


def remove_other_wheels(pins: Iterable[Pin], folder: Path) -> None:
    """Remove the wheels that have none of the pinned digests: other versions, partial files."""
    hashes = frozenset[str]().union(*(pin.hashes for pin in pins))
    for path in folder.glob("*.whl"):
        if sha256_file(path) not in hashes:
            path.unlink()


def _download(
    pip: Pip,
    pins: Sequence[Pin],
    origin: Origin | None,
    folder: Path,
    arguments: Sequence[str],
    on_line: OnLine,
) -> None:
    """Download packages from the user's own sources, or else a package from its origin's index."""
    sources: list[list[str]] = [[]]
    if origin:
        # The index is named for this package only, so that an unreachable one delays no other download.
        sources.append(["--index-url", origin.index, "--retries", "2"])
    outputs = ""
    for source in sources:
        status, output = pip.run([*arguments, "-r", pip.requirements(pins), *source], on_line)
        if status == 0:
            return
        outputs += output
    raise download_error(pins, folder, outputs, origin)


def link_downloads(temporary: Path, folder: Path) -> None:
    """Hard-link the files in the temporary directory of a running pip into ``folder``.

    pip moves its downloads all together at the end, and deletes them when it is interrupted. Files that were
    linked before they were complete are recognized by their digest later. Where hard links are impossible,
    pip's own copy at the end remains.
    """
    # Not Path.glob: in Python 3.11 it raises when pip deletes a directory at the same time.
    for path in glob.glob(f"{glob.escape(str(temporary))}/pip-*/*.whl"):
        with suppress(OSError):
            os.link(path, folder / os.path.basename(path))
