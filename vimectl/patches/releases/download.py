"""Download a file into the user's cache: as a whole, or only the blocks that are read."""

from __future__ import annotations

import hashlib
import io
import os
from contextlib import suppress
from pathlib import Path

import requests
from filelock import FileLock
from urllib3.exceptions import HTTPError
from vime_runtime.spec.errors import CheckFailed, MissingRequirement

from vimectl.patches.releases.index import ReleaseFile, release_cache, write_cache_file
from vimectl.patches.releases.web import NoRanges, Web
from vimectl.util.directory_lock import explain_disk_errors
from vimectl.util.phase_progress import PhaseProgress, ReportPhase

BLOCK = 128 * 1024
_CHUNK = 64 * 1024
_MIB = 1024**2
_TRIES = 5
# The strongest first; an index states SHA-256, older ones the others.
_ALGORITHMS = ("sha512", "sha384", "sha256", "sha224", "sha1", "md5")


def cache_folder(file: ReleaseFile) -> Path:
    """Return the cache folder of a file: by its digest, or by its URL when its source states none."""
    identity = max(file.hashes.values(), key=len, default=file.url)
    return release_cache() / "files" / hashlib.sha256(identity.encode()).hexdigest()[:32]


def download_file(file: ReleaseFile, folder: Path, web: Web, progress: ReportPhase) -> Path:
    """Return the file in ``folder``, downloaded unless it is there with the digest that its source states.

    An interrupted download is resumed. If two processes want the file, one downloads it, the other waits.

    Raises:
        CheckFailed: the file has another digest than its source states.
        MissingRequirement: the connection fails, or the disk is full.
    """
    with explain_disk_errors(folder, "set XDG_CACHE_HOME=DIR to use another cache folder"):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / file.name
        part = folder / f"{file.name}.part"
        with FileLock(folder / ".lock"):
            if not path.is_file() or mismatch(path, file):
                _receive(file, part, web, progress)
                if found := mismatch(part, file):
                    part.unlink()
                    hint = "the index and the file do not agree: check pip's configuration (pip config list)"
                    raise CheckFailed(f"{file.name}: found {found}", hint)
                os.replace(part, path)
    return path


def mismatch(path: Path, file: ReleaseFile) -> str:
    """Return the digests found and stated; empty when they agree or the source states none."""
    algorithm = next((name for name in _ALGORITHMS if name in file.hashes), None)
    if algorithm is None:
        return ""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as opened:
        while chunk := opened.read(_MIB):
            digest.update(chunk)
    found, stated = digest.hexdigest(), file.hashes[algorithm].lower()
    return "" if found == stated else f"{algorithm} {found}, expected {stated}"


def _receive(file: ReleaseFile, part: Path, web: Web, progress: ReportPhase) -> None:
    """Append to ``part`` until it is complete; a response that was cut short is requested again."""
    for _ in range(_TRIES):
        # One byte again, so that there is a range to ask for when the file is complete.
        have = max(0, part.stat().st_size - 1) if part.exists() else 0
        with web.get(file.url, {"Range": f"bytes={have}-"} if have else None) as response:
            have = have if response.status_code == 206 else 0
            length = response.headers.get("Content-Length")
            size = have + int(length) if length else 0
            with part.open("ab") as out, suppress(HTTPError):
                out.truncate(have)
                # Not decoded: some servers send a .tar.gz with `Content-Encoding: gzip`.
                for data in response.raw.stream(_CHUNK, decode_content=False):
                    out.write(data)
                    have += len(data)
                    phase, total = f"downloading {file.name}", size // _MIB
                    progress(PhaseProgress(phase, have // _MIB, total, "MiB", 0 if total else have))
                if size in (0, have):
                    return
    raise MissingRequirement(
        f"{file.name}: the connection breaks off", "the same command continues where it stopped"
    )


class HttpRangeFile(io.RawIOBase):
    """A file on a server as a seekable file, of which only the blocks that are read are fetched, once ever.

    ``size`` is in bytes (None: taken from the server). Blocks are kept in ``folder``, each after its digest:
    any number of processes may fill the same folder, and a damaged block is fetched again.

    Raises:
        NoRanges: when the server does not send the requested part.
        MissingRequirement: the connection fails, or repeatedly breaks off.
    """

    def __init__(self, web: Web, url: str, size: int | None, folder: Path) -> None:
        super().__init__()
        self._web, self._url, self._folder = web, url, folder
        self._blocks: dict[int, bytes] = {}
        self._position = 0
        self.size = size or int(self._request(0, 1).headers["Content-Range"].rpartition("/")[2])

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

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            path = self._folder / f"{number:06d}"
            self._blocks[number] = _cached_block(path) or self._fetch(number * BLOCK, path)
        return self._blocks[number]

    def _fetch(self, start: int, path: Path) -> bytes:
        stop = min(start + BLOCK, self.size)
        data = self._request(start, stop).content
        if len(data) != stop - start:
            raise NoRanges(f"{self._url}: the server sends another file than before", "try again")
        # If the cache cannot be written, the copy in memory is enough for this process.
        write_cache_file(path, hashlib.sha256(data).digest() + data)
        return data

    def _request(self, start: int, stop: int) -> requests.Response:
        return self._web.read(self._url, {"Range": f"bytes={start}-{stop - 1}"}, part=True)


def _cached_block(path: Path) -> bytes | None:
    """Return a block of the cache; None if it is damaged or not there."""
    with suppress(OSError):
        data = path.read_bytes()
        return data[32:] if hashlib.sha256(data[32:]).digest() == data[:32] else None
    return None
