"""Download the files of a lock, several at a time: wheels, also for another machine, and source archives.

Each file is found by the digests that the lock accepts, in the sources that pip is configured with.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from packaging.tags import Tag, compatible_tags, cpython_tags, sys_tags
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version
from vime_runtime.spec.atomic_io import sha256_file
from vime_runtime.spec.errors import CheckFailed, MissingRequirement, UsageError, VimeError

from vimectl.releases import index, pip_config
from vimectl.releases.download import receive_file
from vimectl.releases.index import ReleaseFile, parse_file_name
from vimectl.releases.pip_config import PipConfig
from vimectl.releases.web import Web
from vimectl.stacks.lock import Pin
from vimectl.stacks.schema import Origin
from vimectl.stacks.versions import matches
from vimectl.util.directory_lock import explain_disk_errors, lock_directory
from vimectl.util.phase_progress import PhaseProgress, ReportPhase

_CONNECTIONS = 8
_REPORT_SECONDS = 0.2
# How long an interrupted call waits for its connections to notice it. A silent server keeps one longer.
_STOP_SECONDS = 1.0
# The platform tags from before PEP 600, by the minor version of glibc that they stand for.
_LEGACY_PLATFORMS = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
_OLDEST_GLIBC = 5
_FIND_LINKS = "`pip config set global.find-links DIR` with the file in DIR"
_DISK_HINT = "free some space, or use a directory on another disk (for the cache: set XDG_CACHE_HOME=DIR)"

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class WheelTarget:
    """The interpreter that wheels are for when it is not the running one: CPython on Linux.

    ``python`` is its minor version (``3.12``), ``machine`` as in uname, ``glibc`` as in ``2.35``.
    """

    python: str
    machine: str
    glibc: str

    @cached_property
    def ranks(self) -> dict[Tag, int]:
        """The compatible tags, the preferred one first, with their positions."""
        major, minor = map(int, self.python.split("."))
        name = f"cp{major}{minor}"
        platforms = []
        for glibc in range(int(self.glibc.partition(".")[2]), _OLDEST_GLIBC - 1, -1):
            platforms.append(f"manylinux_2_{glibc}_{self.machine}")
            if glibc in _LEGACY_PLATFORMS:
                platforms.append(f"{_LEGACY_PLATFORMS[glibc]}_{self.machine}")
        platforms.append(f"linux_{self.machine}")
        tags = [*cpython_tags((major, minor), [name], platforms)]
        return _ranks([*tags, *compatible_tags((major, minor), name, platforms)])

    def __str__(self) -> str:
        return f"Python {self.python}, {self.machine}, glibc {self.glibc}"

    def accepts(self, name: str) -> bool:
        """Return True for the name of a compatible wheel, or of a source archive."""
        return _fits(name, self.ranks)


def download_locked(
    pins: Sequence[Pin],
    folder: Path,
    origins: Mapping[str, Origin],
    report: ReportPhase,
    target: WheelTarget | None = None,
) -> list[Path]:
    """Download the file of each pin unless ``folder`` has it; return the files in the order of ``pins``.

    A file fits the target, by default the running interpreter. A source archive is only used for a pin that
    accepts no other file. After an interruption the same call resumes, in the middle of a file too. One
    process at a time may call it for a folder.

    Raises:
        CheckFailed: a file has another digest.
        UsageError: a source is malformed.
        MissingRequirement: no source has a package or can be reached, a server is too slow or sends too much,
            there is no pip, or the disk is full.
    """
    ranks = target.ranks if target else _ranks(sys_tags())
    with explain_disk_errors(folder, _DISK_HINT):
        folder.mkdir(parents=True, exist_ok=True)
        present = {sha256_file(path): path for path in folder.iterdir() if _fits(path.name, ranks)}
        files = {pin.name: present[digest] for pin in pins for digest in pin.hashes & present.keys()}
        if missing := [pin for pin in pins if pin.name not in files]:
            described = str(target or "this interpreter")
            config, connections = pip_config.read(), min(_connections(), len(missing))
            webs = [Web(config, connections) for _ in range(connections)]
            download = _Download(config, origins, ranks, described, folder, report, webs)
            files |= download.run(missing, len(files))
    return [files[pin.name] for pin in pins]


def download_wheel(
    name: str, version: str, digest: str, folder: Path, report: Callable[[int, int], None]
) -> Path:
    """Return the wheel with this SHA-256 in ``folder``, which holds no other; download it when it is missing.

    ``report`` gets the bytes downloaded and the bytes in total. An interrupted download is resumed.

    Raises:
        CheckFailed, UsageError, MissingRequirement: as ``download_locked``.
    """
    text = f"{name}=={version} --hash=sha256:{digest}"
    pin = Pin(canonicalize_name(name), version, frozenset({digest}), text)

    def on_progress(now: PhaseProgress) -> None:
        if now.total_bytes:
            report(now.bytes, now.total_bytes)

    with lock_directory(folder, lambda: None):
        (wheel,) = download_locked([pin], folder, {}, on_progress)
        for path in folder.iterdir():
            if path != wheel:
                path.unlink()
        return wheel


@dataclass
class _Choice:
    """The files that may be that of a pin, the preferred one first.

    Those of which the source states no SHA-256 are downloaded to find out.
    """

    pin: Pin
    files: list[ReleaseFile]

    @property
    def size(self) -> float:
        return self.files[0].size or float("inf")  # an index that states no sizes is one of large files


class _Stopped(Exception):
    """Another connection failed, or the user interrupted the call."""


@dataclass
class _Download:
    """One call of ``download_locked`` that found files missing."""

    config: PipConfig
    origins: Mapping[str, Origin]
    ranks: Mapping[Tag, int]
    target: str
    folder: Path
    report: ReportPhase
    webs: Sequence[Web]
    links: dict[str, list[ReleaseFile]] = field(default_factory=dict)
    failed_links: Sequence[VimeError] = ()
    # Bytes that have arrived and size by file name.
    transfers: dict[str, tuple[int, int]] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, pins: Sequence[Pin], finished: int) -> dict[str, Path]:
        """Download the files of ``pins``; return their paths by package."""
        total = finished + len(pins)
        linked, self.failed_links = index.list_find_links(self.config, self.webs[0])
        for file in linked:
            self.links.setdefault(file.package, []).append(file)
        finding = PhaseProgress("finding the files of the lock", total=len(pins))
        choices = self._each(self._find, pins, lambda done: self.report(finding._replace(done=done)))
        if absent := [choice.pin for choice in choices if not choice.files]:
            raise self._absent(absent)
        choices.sort(key=lambda choice: -choice.size)  # the largest first: it takes longest
        self.transfers = {one.files[0].name: (0, one.files[0].size or 0) for one in choices}

        def show(done: int) -> None:
            have, sizes = (sum(column) for column in zip(*self.transfers.copy().values(), strict=True))
            self.report(PhaseProgress("downloading", finished + done, total, bytes=have, total_bytes=sizes))

        paths = self._each(self._receive, choices, show)
        return {choice.pin.name: path for choice, path in zip(choices, paths, strict=True)}

    def _find(self, web: Web, pin: Pin) -> _Choice:
        """Find the files of a pin in the user's sources, or else in its origin."""
        files = self._accepted(self.links.get(pin.name, ()), pin)
        indexes = self.config.indexes
        if (origin := self.origins.get(pin.name)) and not self.config.no_index:
            indexes.append(origin.index)
        failed = [*self.failed_links]
        for address in indexes:
            if any("sha256" in file.hashes for file in files):
                break
            try:
                files += self._accepted(index.list_accepted(pin.name, pin.hashes, address, web), pin)
            except VimeError as e:
                failed.append(e)
        if failed and not files:
            raise _failure(pin, failed[0], origin)
        files.sort(key=lambda file: "sha256" not in file.hashes)
        return _Choice(pin, files)

    def _accepted(self, files: Iterable[ReleaseFile], pin: Pin) -> list[ReleaseFile]:
        """Return the files that fit and have an accepted or an unknown digest, the preferred one first."""
        accepted = []
        for file in self._fitting(files, pin):
            digest = _digest(file)
            if digest in pin.hashes or (digest is None and matches(file.version, pin.version)):
                # Another digest that the source states proves nothing about this one.
                accepted.append(replace(file, hashes={"sha256": digest} if digest else {}))
        accepted.sort(key=lambda file: file.build, reverse=True)
        return sorted(accepted, key=lambda file: _rank(file.name, self.ranks))

    def _fitting(self, files: Iterable[ReleaseFile], pin: Pin) -> list[ReleaseFile]:
        kinds = ("wheel", "sdist") if len(pin.hashes) == 1 else ("wheel",)
        return [file for file in files if file.kind in kinds and _fits(file.name, self.ranks)]

    def _receive(self, web: Web, choice: _Choice) -> Path:
        """Download the file of a pin and return its path."""
        for file in choice.files:
            path = self.folder / file.name

            def on_bytes(have: int, size: int | None, stated: int | None = file.size) -> None:
                if self.stop.is_set():
                    raise _Stopped
                self.transfers[choice.files[0].name] = have, size or stated or 0

            try:
                receive_file(file, path, web, on_bytes)
            except (MissingRequirement, UsageError) as e:
                raise _failure(choice.pin, e, self.origins.get(choice.pin.name)) from e
            found = file.hashes.get("sha256") or sha256_file(path)
            if found in choice.pin.hashes:
                return path
            path.unlink()
        raise _wrong_file(choice.pin, file.name, found, self.origins.get(choice.pin.name))

    def _absent(self, pins: Sequence[Pin]) -> VimeError:
        """Return the error for pins of which the sources have no file that fits and is accepted."""
        pin, origin = pins[0], self.origins.get(pins[0].name)
        offered, _ = index.list_files(pin.name, self.config, self.webs[0])
        same = [file for file in offered if matches(file.version, pin.version)]
        for file in self._fitting(same, pin):
            if digest := _digest(file):
                return _wrong_file(pin, str(file.local or file.name), digest, origin)
        offer = f"they offer no {pin.name}"
        if same:
            more = f" and {len(same) - 3} more" if len(same) > 3 else ""
            offer = f"they offer {', '.join(file.name for file in same[:3])}{more}"
        elif offered:
            offer = f"the newest that they offer is {max(Version(file.version) for file in offered)}"
        if len(pins) > 1:
            offer += f"; nor of {', '.join(f'{other.name} {other.version}' for other in pins[1:])}"
        return MissingRequirement(
            f"pip's sources offer no file of {pin.name} {pin.version} for {self.target}, "
            f"expected {expected_file(pin, origin)}: {offer}",
            source_hint(origin),
        )

    def _each(
        self, function: Callable[[Web, T], R], items: Sequence[T], show: Callable[[int], None]
    ) -> list[R]:
        """Apply ``function`` to each item, in a thread for each connection, and raise its first error.

        ``show`` is called in this thread with the number of finished items.
        """
        results: list[Future[R]] = [Future() for _ in items]
        waiting = deque(zip(items, results, strict=True))

        def work(web: Web) -> None:
            while not self.stop.is_set():
                try:
                    item, result = waiting.popleft()
                except IndexError:
                    return
                try:
                    result.set_result(function(web, item))
                except _Stopped:
                    return
                except BaseException as e:
                    result.set_exception(e)
                    self.stop.set()

        # Not an executor: the interpreter waits for its threads when it exits, and a server may be silent.
        threads = [threading.Thread(target=work, args=[web], daemon=True) for web in self.webs[: len(items)]]
        for thread in threads:
            thread.start()
        try:
            pending = set(results)
            while pending:
                _, pending = wait(pending, _REPORT_SECONDS, FIRST_EXCEPTION)
                for result in results:
                    if result.done():
                        result.result()
                show(len(items) - len(pending))
        except BaseException:  # KeyboardInterrupt too
            self.stop.set()
            deadline = time.monotonic() + _STOP_SECONDS
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
            raise
        return [result.result() for result in results]


def _connections() -> int:
    """Return the number of connections. uv's variable lowers it, for proxies and mirrors that allow few."""
    text = os.environ.get("UV_CONCURRENT_DOWNLOADS", "")
    return min(_CONNECTIONS, max(1, int(text))) if text.isdecimal() else _CONNECTIONS


def _ranks(tags: Iterable[Tag]) -> dict[Tag, int]:
    return {tag: rank for rank, tag in enumerate(tags)}


def _fits(name: str, ranks: Mapping[Tag, int]) -> bool:
    """Return True for the name of a wheel that has a compatible tag, or of a source archive."""
    if parse_file_name(name) is None:
        return False
    return not name.endswith(".whl") or not ranks.keys().isdisjoint(parse_wheel_filename(name)[3])


def _rank(name: str, ranks: Mapping[Tag, int]) -> int:
    """Return the position of a compatible file: any wheel is before a source archive."""
    if not name.endswith(".whl"):
        return len(ranks)
    return min(ranks[tag] for tag in parse_wheel_filename(name)[3] if tag in ranks)


def _digest(file: ReleaseFile) -> str | None:
    """Return the stated SHA-256; that of the content if the file is on this machine and none is stated."""
    if file.local and "sha256" not in file.hashes:
        try:
            return sha256_file(file.local)
        except OSError as e:
            raise UsageError(f"{file.local}: cannot be read: {e.strerror}", "pip config list") from e
    return file.hashes.get("sha256")


def expected_file(pin: Pin, origin: Origin | None) -> str:
    """Return the digest that a file of a pin must have, with the names that its origin states."""
    named = [file for file in origin.files if file.sha256 in pin.hashes] if origin else []
    if named:
        return "; ".join(f"{file.name} sha256 {file.sha256}" for file in named)
    first, *others = sorted(pin.hashes)
    more = f" or one of {len(others)} others" if others else ""
    return f"sha256 {first}{more}"


def source_hint(origin: Origin | None) -> str:
    """Return how to give pip a source of a file that its sources lack."""
    network = f"access to {origin.index}" if origin else "network access"
    return f"give pip a source that has it: {network}, or {_FIND_LINKS}"


def _wrong_file(pin: Pin, name: str, digest: str, origin: Origin | None) -> CheckFailed:
    return CheckFailed(
        f"found {name} sha256 {digest}, expected {expected_file(pin, origin)}", source_hint(origin)
    )


def _failure(pin: Pin, failed: VimeError, origin: Origin | None) -> VimeError:
    """Return the error of a source with the package that is missing for it."""
    message = f"downloading {pin.name} {pin.version}: {failed.message}"
    if origin:
        return type(failed)(f"{message}; expected {expected_file(pin, origin)}", source_hint(origin))
    hint = "check the connection, pip's configuration (pip config list) and for credentials ~/.netrc"
    return type(failed)(message, f"{hint}; the same command resumes where it stopped")
