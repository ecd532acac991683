"""Download a file into the user's cache: as a whole, or only the blocks that are read."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from filelock import FileLock
from urllib3.exceptions import HTTPError
from vime_runtime.spec.errors import CheckFailed, MissingRequirement, UsageError
from vime_runtime.spec.regular_files import open_regular, read_regular

from vimectl.releases.index import ALGORITHMS, ReleaseFile, release_cache, write_cache_file
from vimectl.releases.web import NoRanges, Page, Web, body_of, content_length, shown
from vimectl.util.directory_lock import explain_disk_errors
from vimectl.util.phase_progress import PhaseProgress, ReportPhase
from vimectl.util.transfer_limits import MAX_FILE_BYTES, MAX_UNSTATED_BYTES

BLOCK = 128 * 1024
_MIB = 1024**2
# In a row, each with less than a MiB.
_TRIES = 5
_DISAGREE = "the index and the file do not agree: check pip's configuration (pip config list)"
# A file of 8 MiB in parts stays in memory, more is read from the cache again.
_BLOCKS_IN_MEMORY = 64
# Called with the bytes that have arrived, and the size of the file if it is known, before they are written.
OnBytes = Callable[[int, int | None], None]
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


def cache_folder(file: ReleaseFile) -> Path:
    """Return the cache folder of a file: by its digest, or by its URL when its source states none."""
    identity = max(file.hashes.values(), key=len, default=file.url)
    return release_cache() / "files" / hashlib.sha256(identity.encode()).hexdigest()[:32]


def download_file(file: ReleaseFile, folder: Path, web: Web, progress: ReportPhase) -> Path:
    """Return the file in ``folder``, downloaded unless it is there with the digest that its source states.

    An interrupted download is resumed. If two processes want the file, one downloads it, the other waits.

    Raises:
        CheckFailed: the file has another digest or size than its source states.
        UsageError: it is too large.
        MissingRequirement: the connection fails, or the disk is full.
    """
    phase = f"downloading {file.name}"

    def on_bytes(have: int, size: int | None) -> None:
        total = (size or 0) // _MIB
        progress(PhaseProgress(phase, have // _MIB, total, "MiB", 0 if total else have))

    with explain_disk_errors(folder, "set XDG_CACHE_HOME=DIR to use another cache folder"):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / file.name
        with FileLock(folder / ".lock"):
            if not path.is_file() or mismatch(path, file):
                receive_file(file, path, web, on_bytes)
    return path


def receive_file(file: ReleaseFile, path: Path, web: Web, on_bytes: OnBytes) -> None:
    """Copy or download a file to ``path``, where it appears when it has the digest that its source states.

    What an interrupted call has received is in ``PATH.part``, from which the next one resumes. The caller
    makes sure that there is one call at a time for a path.

    Raises:
        CheckFailed: the file has another digest or size than its source states.
        UsageError: it is too large.
        MissingRequirement: the connection fails.
        OSError: the file cannot be written, or a local one not be read.
    """
    part = path.with_name(f"{path.name}.part")
    resumed = part.exists()
    try:
        if file.local:
            _copy(file.local, part, on_bytes)
        else:
            _receive(file, part, web, on_bytes)
        if found := mismatch(part, file):
            raise CheckFailed(f"{file.name}: found {found}", _DISAGREE)
    except (UsageError, CheckFailed):
        part.unlink(missing_ok=True)
        if not resumed:
            raise
        receive_file(file, path, web, on_bytes)  # the part was damaged, or of another file
    else:
        os.replace(part, path)


def _copy(source: Path, part: Path, on_bytes: OnBytes) -> None:
    with open_regular(source) as opened, part.open("wb") as out:
        size, have = os.fstat(opened.fileno()).st_size, 0
        while chunk := opened.read(_MIB):
            on_bytes(have := have + len(chunk), size)
            out.write(chunk)


def mismatch(path: Path, file: ReleaseFile) -> str:
    """Return the digests found and stated; empty when they agree or the source states none."""
    algorithm = next((name for name in ALGORITHMS if name in file.hashes), None)
    if algorithm is None:
        return ""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open_regular(path) as opened:
        while chunk := opened.read(_MIB):
            digest.update(chunk)
    found, stated = digest.hexdigest(), file.hashes[algorithm].lower()
    return "" if found == stated else f"{algorithm} {found}, expected {stated}"


def _receive(file: ReleaseFile, part: Path, web: Web, on_bytes: OnBytes) -> None:
    """Append to ``part`` until it is complete; a response that was cut short is requested again."""
    failures = 0
    while failures < _TRIES:
        # One byte again, so that there is a range to ask for when the file is complete.
        start = have = max(0, part.stat().st_size - 1) if part.exists() else 0
        limit = MAX_FILE_BYTES if file.size is None else file.size
        with web.get(file.url, {"Range": f"bytes={have}-"} if have else None, limit) as response:
            if response.status_code == 416:  # what is here is no part of the file
                part.unlink()
                failures += 1
                continue
            sent_range = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            continued = response.status_code == 206 and sent_range and int(sent_range[1]) == have
            have = have if continued else 0
            length = content_length(response)
            size = have + length if length is not None else file.size
            if file.size is not None and size != file.size:
                raise CheckFailed(f"{file.name}: found {size} bytes, expected {file.size}", _DISAGREE)
            limit = MAX_UNSTATED_BYTES if size is None else min(size, MAX_FILE_BYTES)
            with part.open("ab") as out, suppress(HTTPError):
                out.truncate(have)
                for data in body_of(response, limit - have):
                    on_bytes(have := have + len(data), size)
                    out.write(data)
                if size in (None, have):
                    return
        failures = 0 if have - start >= _MIB else failures + 1
    raise MissingRequirement(
        f"{file.name}: the connection breaks off", "the same command continues where it stopped"
    )


class HttpRangeFile(io.RawIOBase):
    """A file on a server as a seekable file, of which only the blocks that are read are fetched, once ever.

    Nothing verifies what is read: the digest in an index is that of the whole file. ``size`` is in bytes
    (None: taken from the server). Blocks are kept in ``folder``, each after its digest: any number of
    processes may fill the same folder, and a damaged block is fetched again.

    Raises:
        NoRanges: when the server does not send the requested part.
        MissingRequirement: the connection fails, or repeatedly breaks off.
    """

    def __init__(self, web: Web, url: str, size: int | None, folder: Path) -> None:
        super().__init__()
        self._web, self._url, self._folder = web, url, folder
        self._position = 0
        self._block = lru_cache(_BLOCKS_IN_MEMORY)(self._read_block)
        self.size = size or self._range(self._request(0, 1))[2]
        if not 0 < self.size <= MAX_FILE_BYTES:
            raise NoRanges(f"{shown(url)}: the server states a size of {self.size} bytes", "try again")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self.size)[whence]
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        number, start = divmod(self._position, BLOCK)
        data = self._block(number)[start : start + len(buffer)] if self._position < self.size else b""
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _read_block(self, number: int) -> bytes:
        path = self._folder / f"{number:06d}"
        return _cached_block(path) or self._fetch(number * BLOCK, path)

    def _fetch(self, start: int, path: Path) -> bytes:
        stop = min(start + BLOCK, self.size)
        page = self._request(start, stop)
        if self._range(page) != (start, stop - 1, self.size) or len(page.content) != stop - start:
            raise NoRanges(
                f"{shown(self._url)}: the server sends another part or file than before", "try again"
            )
        # If the cache cannot be written, the copy in memory is enough for this process.
        write_cache_file(path, hashlib.sha256(page.content).digest() + page.content)
        return page.content

    def _request(self, start: int, stop: int) -> Page:
        return self._web.read(self._url, {"Range": f"bytes={start}-{stop - 1}"}, stop - start, part=True)

    def _range(self, page: Page) -> tuple[int, int, int]:
        """Return first byte, last byte and size of the file as the server states them."""
        stated = _CONTENT_RANGE.fullmatch(page.range)
        if not stated:
            raise NoRanges(
                f"{shown(self._url)}: the server states the range {shown(page.range)!r}", "try again"
            )
        first, last, size = map(int, stated.groups())
        return first, last, size


def _cached_block(path: Path) -> bytes | None:
    """Return a block of the cache; None if it is damaged or not there."""
    with suppress(OSError):
        data = read_regular(path, 2 * BLOCK)
        return data[32:] if hashlib.sha256(data[32:]).digest() == data[:32] else None
    return None
