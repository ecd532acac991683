"""The training region of a CPU machine: its bytes wait in a file while the region is paused."""

from __future__ import annotations

import ctypes
import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vime_runtime.memory.arena import Arena
from vime_runtime.memory.kernel import bypass_cache, cached_bytes, uncache
from vime_runtime.memory.placement import Placement
from vime_runtime.memory.region import Residency
from vime_runtime.memory.sentinels import Sentinels

# The kernel transfers at most about 2 GiB a call; smaller pieces also let a signal in between, and a
# piece of zeros is not kept.
PIECE = 4 * 1024**2

_libc = ctypes.CDLL(None)
_libc.memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class HostRegion:
    """A region in host memory.

    Args:
        directory: where the backing file lies. It should be on a disk: on a tmpfs the bytes would stay
            in memory, which ``residency`` shows. The file has no name, so nothing is left of it
            however the process ends.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._arena = Arena()
        self._backing = tempfile.TemporaryFile(dir=directory, prefix="vime-region-", buffering=0)  # noqa: SIM115
        bypass_cache(self._backing.fileno())
        self._saved: dict[tuple[int, int], Sentinels] = {}
        self._paused = False

    @property
    def paused(self) -> bool:
        """Whether the memory is given back at the moment."""
        return self._paused

    @contextmanager
    def allocating(self) -> Iterator[None]:
        """Every CPU tensor created inside lives in the region."""
        if self._paused:
            raise RuntimeError("the region is paused: nothing can be allocated in it")
        with Placement(self._arena):
            yield

    def pause(self) -> None:
        """Write the pages of live bytes to the backing file and give them back.

        Zeros are not written: between steps a quarter of a trainer in fp32 is gradients that are zero. Nor
        does anything have to be done about them afterwards: what the kernel takes comes back as zeros.

        Raises:
            RuntimeError: it is paused already.
            OSError: the bytes could not be written; the region is as before.
        """
        self._expect(paused=False)
        base = self._arena.base
        pieces = [piece for piece in self._pieces() if not _is_zero(base + piece[0], piece[1])]
        try:
            self._transfer(pieces, os.pwritev)
            uncache(self._backing.fileno())
        except OSError as e:
            os.ftruncate(self._backing.fileno(), 0)
            size = sum(size for _, size in pieces)
            raise OSError(
                e.errno, f"cannot keep {size} bytes of a paused region: {e.strerror}", str(self._directory)
            ) from e
        self._saved = {(offset, size): Sentinels(base + offset, size) for offset, size in pieces}
        self._arena.give_back()
        self._paused = True

    def discard(self) -> None:
        """Pause without keeping the contents: after ``resume`` a byte is what it was or zero."""
        self._expect(paused=False)
        self._arena.give_back()
        self._paused = True

    def resume(self) -> None:
        """Take the pages again, and read back what the kernel took of them meanwhile.

        The file keeps its room on the disk for the next time.

        Raises:
            RuntimeError: it is not paused.
            OSError: the bytes could not be read; the region is still paused.
        """
        self._expect(paused=True)
        lost = [piece for piece, sentinels in self._saved.items() if not sentinels.still_there()]
        self._transfer(lost, os.preadv)
        uncache(self._backing.fileno())
        self._saved = {}
        self._paused = False

    def residency(self) -> Residency:
        """As the kernel counts it; pages of the backing file that are in memory count as resident.

        What is left of a paused region is spare: nobody touches it. The kernel could say so too, in smaps,
        but some 20 ms later each time.
        """
        arena = self._arena.residency()
        cached = cached_bytes(self._backing.fileno())
        if self._paused:
            return Residency(arena.mapped, cached, spare=arena.resident)
        return Residency(arena.mapped, arena.resident + cached)

    def _expect(self, paused: bool) -> None:
        if self._paused is not paused:
            raise RuntimeError(f"the region is {'not ' if paused else ''}paused")

    def _pieces(self) -> Iterator[tuple[int, int]]:
        """Offset and size of every piece of the pages with live blocks."""
        done = 0
        for offset, size in self._arena.live():
            start = max(offset // mmap.PAGESIZE * mmap.PAGESIZE, done)
            done = -(-(offset + size) // mmap.PAGESIZE) * mmap.PAGESIZE
            for at in range(start, done, PIECE):
                yield at, min(PIECE, done - at)

    def _transfer(
        self, pieces: list[tuple[int, int]], move: Callable[[int, list[memoryview], int], int]
    ) -> None:
        """Move each piece between its address and the same offset of the file."""
        for offset, size in pieces:
            done = 0
            while done < size:
                at = offset + done
                view = memoryview((ctypes.c_char * (size - done)).from_address(self._arena.base + at))
                moved = move(self._backing.fileno(), [view], at)
                if moved == 0:
                    raise OSError(0, "the backing file ended early")
                done += moved


def _is_zero(address: int, size: int) -> bool:
    """Whether all bytes are zero: the first is, and each equals the next. Ends at the first that is not."""
    first = ctypes.c_char.from_address(address).value == b"\0"
    return first and _libc.memcmp(address, address + 1, size - 1) == 0
