"""A file on a server as a seekable file, of which only the blocks that are read are fetched, each once ever.

Blocks lie in the user's cache, one file each, named by position and digest: any number of processes may fill
the same folder, and a damaged block is told and fetched again.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from vime_runtime.spec.errors import MissingRequirement

from vimectl.patches.releases.index_cache import put
from vimectl.patches.releases.web import Web, body

BLOCK = 128 * 1024
_TRIES = 3
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)$")


class NoRanges(Exception):
    """The server does not give parts of this file."""


class RangedFile(io.RawIOBase):
    """``url``, ``size`` bytes long (None: the server is asked), its blocks kept in ``folder``.

    Raises:
        NoRanges: on the first read, when the server answers with the whole file or another part of it.
        MissingRequirement: on a later one; the connection fails, or breaks off several times in one place.
    """

    def __init__(self, web: Web, url: str, size: int | None, folder: Path) -> None:
        super().__init__()
        self._web, self._url, self._folder = web, url, folder
        self._blocks: dict[int, bytes] = {}
        self._position = 0
        self.size = size if size is not None else self._ask_size()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

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
        """Have the bytes from ``start`` on at hand, with one request for each gap between those that are."""
        stop = min(start + length, self.size)
        wanted = range(start // BLOCK, (stop - 1) // BLOCK + 1)
        missing = [n for n in wanted if n not in self._blocks and not self._from_cache(n)]
        for first, last in _runs(missing):
            data = self._fetch(first * BLOCK, min((last + 1) * BLOCK, self.size))
            for number in range(first, last + 1):
                self._keep(number, data[(number - first) * BLOCK : (number - first + 1) * BLOCK])

    def _ask_size(self) -> int:
        with self._web.get(self._url, {"Range": "bytes=0-0"}) as answer:
            match = _RANGE.match(answer.headers.get("Content-Range", ""))
            if answer.status != 206 or not match:
                raise NoRanges(self._url)
            return int(match[3])

    def _fetch(self, start: int, stop: int) -> bytes:
        """Return the bytes from ``start`` to before ``stop``; an answer cut short is asked for again."""
        data = b""
        for _ in range(_TRIES):
            at = start + len(data)
            with self._web.get(self._url, {"Range": f"bytes={at}-{stop - 1}"}) as answer:
                match = _RANGE.match(answer.headers.get("Content-Range", ""))
                if answer.status != 206 or not match or (int(match[1]), int(match[3])) != (at, self.size):
                    raise self._no_ranges()
                data = (data + b"".join(body(answer)))[: stop - start]
            if len(data) == stop - start:
                return data
        raise MissingRequirement(f"{self._url}: the connection breaks off", "try again")

    def _no_ranges(self) -> Exception:
        if not self._blocks:
            return NoRanges(self._url)
        return MissingRequirement(f"{self._url}: the server gives another file than before", "try again")

    def _from_cache(self, number: int) -> bool:
        length = min(BLOCK, self.size - number * BLOCK)
        for path in self._folder.glob(f"{number:06d}.*"):
            with suppress(OSError):
                data = path.read_bytes()
                if len(data) == length and path.name == _name(number, data):
                    self._blocks[number] = data
                    return True
                path.unlink()
        return False

    def _keep(self, number: int, data: bytes) -> None:
        self._blocks[number] = data
        put(self._folder / _name(number, data), data)  # without room, that in memory does for this time


def _name(number: int, data: bytes) -> str:
    return f"{number:06d}.{hashlib.sha256(data).hexdigest()}"


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """First and last of each run of consecutive numbers."""
    begin = 0
    for end in range(1, len(numbers) + 1):
        if end == len(numbers) or numbers[end] != numbers[end - 1] + 1:
            yield numbers[begin], numbers[end - 1]
            begin = end
