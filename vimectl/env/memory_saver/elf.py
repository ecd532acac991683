"""Read machine, needed libraries, exported symbols and build id of a shared library.

pyelftools trusts the file: it walks a hash chain to its end, follows a table of 65,535 headers, reads a name
of 30 MB. So it reads through a stream with a limited number of reads and bytes.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

# Far above any real build: some 5,000 reads, 40 libraries, 500 symbols.
_MAX_READS = 50_000
_MAX_BYTES = 4 * 2**20
_MAX_TAGS = 1024
_MAX_SYMBOLS = 5_000

_MACHINES = {"EM_X86_64": "x86_64", "EM_AARCH64": "aarch64"}


@dataclass(frozen=True)
class ElfLibrary:
    """The declarations of a shared library. ``machine`` is as in ``uname -m``, else an ELF constant."""

    machine: str
    needed: tuple[str, ...]
    exported: frozenset[str]
    build_id: str | None


def read_elf(content: bytes) -> ElfLibrary | None:
    """Parse a shared library; return None when it is not a readable ELF library."""
    from elftools.elf.dynamic import DynamicSegment
    from elftools.elf.elffile import ELFFile

    try:
        file = ELFFile(_LimitedStream(content))
        dynamic: Any = next(one for one in file.iter_segments() if isinstance(one, DynamicSegment))
        # pyelftools would read all tags again for each symbol, which takes 0.3 s.
        dynamic.get_table_offset = cache(dynamic.get_table_offset)
        tags = islice(dynamic.iter_tags(), _MAX_TAGS)
        symbols = islice(dynamic.iter_symbols(), _MAX_SYMBOLS)
        return ElfLibrary(
            _MACHINES.get(file["e_machine"], str(file["e_machine"])),
            tuple(str(vars(tag)["needed"]) for tag in tags if tag.entry.d_tag == "DT_NEEDED"),
            frozenset(one.name for one in symbols if one.name and one["st_shndx"] != "SHN_UNDEF"),
            _build_id(file),
        )
    except Exception:
        # A truncated or crafted file can make the parser raise anything; the loader could not use it either.
        return None


class _LimitedStream(io.BytesIO):
    """A file in memory that fails when more is read than any real library needs."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._reads = _MAX_READS
        self._bytes = _MAX_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        if self._reads <= 0 or self._bytes <= 0:
            raise ValueError("more to read than any real library has")
        data = super().read(self._bytes if size is None or size < 0 else min(size, self._bytes))
        self._reads -= 1
        self._bytes -= len(data)
        return data


def _build_id(file: Any) -> str | None:
    """Return the linker's build id, None without one."""
    for segment in file.iter_segments(type="PT_NOTE"):
        for note in segment.iter_notes():
            if note["n_type"] == "NT_GNU_BUILD_ID":
                return str(note["n_desc"])
    return None
