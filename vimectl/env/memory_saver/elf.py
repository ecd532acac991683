"""Read of a shared library what the loader reads: machine, needed libraries, exported symbols, build id.

pyelftools does what a file tells it to: walk a chain of hashes to its end, follow a table of 65,535 headers,
read a name of 30 MB. So it reads through a stream that has only so many reads and bytes to give.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

# Far above any real build: some 2,000 reads, 40 libraries, 500 symbols.
_MOST_READS = 20_000
_MOST_BYTES = 4 * 2**20
_MOST_TAGS = 1024
_MOST_SYMBOLS = 20_000
_LONGEST_NAME = 4096

_MACHINES = {"EM_X86_64": "x86_64", "EM_AARCH64": "aarch64"}
# Name, section and the rest of Elf64_Sym and Elf32_Sym, as `struct` names them.
_SYMBOLS = {64: "IBBHQQ", 32: "IIIBBH"}
_SECTION_FIELD = {64: 3, 32: 5}
_UNDEFINED = 0


@dataclass(frozen=True)
class Library:
    """``machine`` is as ``uname -m`` names it, or the ELF constant of one that is not in use here."""

    machine: str
    needed: tuple[str, ...]
    exported: frozenset[str]
    build_id: str | None


def read_library(content: bytes) -> Library | None:
    """Return what a shared library says of itself, or None when it is not a readable ELF library."""
    from elftools.elf.dynamic import DynamicSegment
    from elftools.elf.elffile import ELFFile

    try:
        file = ELFFile(_Rationed(content))
        dynamic = next(segment for segment in file.iter_segments() if isinstance(segment, DynamicSegment))
        tags = list(islice(dynamic.iter_tags(), _MOST_TAGS))
        return Library(
            _MACHINES.get(file["e_machine"], str(file["e_machine"])),
            tuple(str(vars(tag)["needed"]) for tag in tags if tag.entry.d_tag == "DT_NEEDED"),
            frozenset(_exported(file, dynamic, content)),
            _build_id(file),
        )
    except Exception:
        # A truncated or crafted file makes the parser fail in as many ways as there are fields in the
        # format; whichever it is, the loader could not use the file either.
        return None


class _Rationed(io.BytesIO):
    """A file in memory that fails once more has been read of it than any real library takes."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._reads = _MOST_READS
        self._bytes = _MOST_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        if self._reads <= 0 or self._bytes <= 0:
            raise ValueError("more to read than any real library has")
        data = super().read(self._bytes if size is None or size < 0 else min(size, self._bytes))
        self._reads -= 1
        self._bytes -= len(data)
        return data


def _exported(file: Any, dynamic: Any, content: bytes) -> Iterator[str]:
    """The names of the symbols that the library itself defines.

    Read from the table at once: pyelftools goes through all tags again for each symbol, 0.3 s a library.
    """
    (_, symbols), (_, strings) = dynamic.get_table_offset("DT_SYMTAB"), dynamic.get_table_offset("DT_STRTAB")
    if symbols is None or strings is None:
        return
    entry = struct.Struct(("<" if file.little_endian else ">") + _SYMBOLS[file.elfclass])
    count = min(dynamic.num_symbols(), _MOST_SYMBOLS, (len(content) - symbols) // entry.size)
    for fields in entry.iter_unpack(content[symbols : symbols + max(count, 0) * entry.size]):
        if fields[_SECTION_FIELD[file.elfclass]] != _UNDEFINED:
            start = strings + fields[0]
            end = content.find(b"\0", start, start + _LONGEST_NAME)
            if end > start:
                yield content[start:end].decode("utf-8", "replace")


def _build_id(file: Any) -> str | None:
    """What the linker called this very result; None when it was told not to."""
    for segment in file.iter_segments(type="PT_NOTE"):
        for note in segment.iter_notes():
            if note["n_type"] == "NT_GNU_BUILD_ID":
                return str(note["n_desc"])
    return None
