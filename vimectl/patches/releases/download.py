"""Download a file into the user's cache: as a whole, or only the blocks that are read.

A whole file is resumed where it was interrupted, and checked by digest. Blocks are one file each, named by
position and digest: any number of processes may fill the same folder, and a damaged block is detected and
fetched again.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from filelock import FileLock
from vime_runtime.spec.errors import CheckFailed, MissingRequirement

from vimectl.patches.releases.index import ReleaseFile, release_cache, write_cache_file
from vimectl.patches.releases.web import Web, read_body
from vimectl.util.directory_lock import explain_disk_errors

BLOCK = 128 * 1024
_CHUNK = 256 * 1024
_FILE_TRIES = 5
_BLOCK_TRIES = 3
# The strongest first; an index states SHA-256, older ones the others.
_ALGORITHMS = ("sha512", "sha384", "sha256", "sha224", "sha1", "md5")
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)$")

# Called with the name of the file, the bytes received, and the total (None: the server does not say).
DownloadProgress = Callable[[str, int, "int | None"], None]


def no_progress(name: str, done: int, total: int | None) -> None:
    """Ignore the progress of a download."""


def cache_folder(file: ReleaseFile) -> Path:
    """Return the cache folder of a file: by its digest, or by its URL when its source states none."""
    identity = next(iter(sorted(file.hashes.values(), key=len, reverse=True)), file.url)
    return release_cache() / "files" / hashlib.sha256(identity.encode()).hexdigest()[:32]


def download_file(file: ReleaseFile, folder: Path, web: Web, progress: DownloadProgress) -> Path:
    """Return the file in ``folder``, downloaded unless it is there with the digest that its source states.

    If two processes want it, one downloads it and the other waits. A file whose source states no digest is
    stored with the digest of the first download.

    Raises:
        CheckFailed: the file has another digest than its source states.
        MissingRequirement: the connection fails, or the disk is full.
    """
    with explain_disk_errors(folder, "set XDG_CACHE_HOME=DIR to use another cache folder"):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            path = folder / file.name
            if not is_intact(path, file.hashes or _stored_digest(path)):
                path.unlink(missing_ok=True)
                _download(file, path, web, progress)
            return path


def is_intact(path: Path, hashes: dict[str, str]) -> bool:
    """Return True if a file has the stated digest; False also if no digest is stated."""
    return bool(hashes) and path.is_file() and _mismatch(path, hashes) is None


def verify_digest(path: Path, file: ReleaseFile) -> Path:
    """Return ``path``. Raises CheckFailed when it has another digest than its source states."""
    mismatch = _mismatch(path, file.hashes)
    if mismatch:
        hint = "remove the file, and check where it comes from: pip config list"
        raise CheckFailed(f"{path}: found {mismatch}", hint)
    return path


def _download(file: ReleaseFile, path: Path, web: Web, progress: DownloadProgress) -> None:
    part = path.with_name(f"{path.name}.part")
    while True:
        resumed = part.exists() and part.stat().st_size > 0
        _receive(file, part, web, progress)
        mismatch = _mismatch(part, file.hashes)
        if mismatch is None:
            break
        part.unlink()
        if not resumed:  # otherwise the first half may be of another file
            raise CheckFailed(
                f"{file.name}: found {mismatch}",
                "the index and the file do not agree: check pip's configuration (pip config list)",
            )
    if not file.hashes:
        _digest_path(path).write_text(_digest(part, "sha256"), encoding="utf-8")
    os.replace(part, path)


def _receive(file: ReleaseFile, part: Path, web: Web, progress: DownloadProgress) -> None:
    """Append to ``part`` until it is complete; a response that was cut short is requested again."""
    for _ in range(_FILE_TRIES):
        have = part.stat().st_size if part.exists() else 0
        if have and have == file.size:
            return
        with web.get(file.url, {"Range": f"bytes={have}-"} if have else {}) as response:
            continues = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            if not (response.status == 206 and continues):
                have = 0  # the server sends the whole file
            length = response.headers.get("Content-Length")
            total = have + int(length) if length else None
            with part.open("ab" if have else "wb") as out:
                for data in read_body(response):
                    out.write(data)
                    have += len(data)
                    progress(file.name, have, total)
        if total in (None, have):
            return
    hint = "the same command continues where it stopped"
    raise MissingRequirement(f"{file.name}: the connection breaks off", hint)


def _mismatch(path: Path, hashes: dict[str, str]) -> str | None:
    """Return the digests found and stated; None when they agree or none is stated."""
    for algorithm in _ALGORITHMS:
        if algorithm in hashes:
            found, stated = _digest(path, algorithm), hashes[algorithm].lower()
            return None if found == stated else f"{algorithm} {found}, expected {stated}"
    return None


def _digest(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _digest_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _stored_digest(path: Path) -> dict[str, str]:
    stored = _digest_path(path)
    return {"sha256": stored.read_text(encoding="utf-8").strip()} if stored.is_file() else {}


class NoRanges(Exception):
    """The server does not send parts of this file."""


class HttpRangeFile(io.RawIOBase):
    """A file on a server as a seekable file, of which only the blocks that are read are fetched, once ever.

    ``size`` is in bytes (None: taken from the server). Blocks are kept in ``folder``.

    Raises:
        NoRanges: on the first read, when the server sends the whole file or another part of it.
        MissingRequirement: on a later one; the connection fails, or repeatedly breaks off at one position.
    """

    def __init__(self, web: Web, url: str, size: int | None, folder: Path) -> None:
        super().__init__()
        self._web, self._url, self._folder = web, url, folder
        self._blocks: dict[int, bytes] = {}
        self._position = 0
        self.size = size or 0
        if not size:
            self._fetch(0, 1)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        stop = min(self._position + len(buffer), self.size)
        if stop <= self._position:
            return 0
        self.prefetch(self._position, stop - self._position)
        first = self._position // BLOCK
        data = b"".join(self._blocks[number] for number in range(first, (stop - 1) // BLOCK + 1))
        data = data[self._position - first * BLOCK : stop - first * BLOCK]
        buffer[: len(data)] = data
        self._position = stop
        return len(data)

    def prefetch(self, start: int, length: int) -> None:
        """Fetch the missing blocks of a range, with one request for each run of them."""
        stop = min(start + length, self.size)
        wanted = range(start // BLOCK, (stop - 1) // BLOCK + 1)
        missing = [n for n in wanted if n not in self._blocks and not self._from_cache(n)]
        for first, last in _runs(missing):
            data = self._fetch(first * BLOCK, min((last + 1) * BLOCK, self.size))
            for number in range(first, last + 1):
                block = data[(number - first) * BLOCK : (number - first + 1) * BLOCK]
                self._blocks[number] = block
                # If the cache is full, the copy in memory is enough for this process.
                write_cache_file(self._folder / _block_name(number, block), block)

    def _fetch(self, start: int, stop: int) -> bytes:
        """Return the bytes of a range (``stop`` exclusive); a response cut short is requested again."""
        data = b""
        for _ in range(_BLOCK_TRIES):
            at = start + len(data)
            with self._web.get(self._url, {"Range": f"bytes={at}-{stop - 1}"}) as response:
                match = _RANGE.match(response.headers.get("Content-Range", ""))
                if response.status == 206 and match:
                    self.size = self.size or int(match[3])
                if response.status != 206 or not match or (int(match[1]), int(match[3])) != (at, self.size):
                    if not self._blocks:
                        raise NoRanges(self._url)
                    message = f"{self._url}: the server sends another file than before"
                    raise MissingRequirement(message, "try again")
                data = (data + b"".join(read_body(response)))[: stop - start]
            if len(data) == stop - start:
                return data
        raise MissingRequirement(f"{self._url}: the connection breaks off", "try again")

    def _from_cache(self, number: int) -> bool:
        length = min(BLOCK, self.size - number * BLOCK)
        for path in self._folder.glob(f"{number:06d}.*"):
            with suppress(OSError):
                data = path.read_bytes()
                if len(data) == length and path.name == _block_name(number, data):
                    self._blocks[number] = data
                    return True
                path.unlink()
        return False


def _block_name(number: int, data: bytes) -> str:
    return f"{number:06d}.{hashlib.sha256(data).hexdigest()}"


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and last of each run of consecutive numbers."""
    begin = 0
    for end in range(1, len(numbers) + 1):
        if end == len(numbers) or numbers[end] != numbers[end - 1] + 1:
            yield numbers[begin], numbers[end - 1]
            begin = end
